//go:build unix && !(darwin || dragonfly || freebsd || netbsd || openbsd)

package command

import "golang.org/x/sys/unix"

const getTermios, setTermios, setTermiosFlush = unix.TCGETS, unix.TCSETS, unix.TCSETSF
