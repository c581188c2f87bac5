//go:build linux || freebsd || netbsd || openbsd

package keyring

func newSystem(o systemOptions) Limited { return &secretService{o} }
