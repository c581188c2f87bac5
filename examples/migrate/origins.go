package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	gokeyring "github.com/zalando/go-keyring"
	"golang.org/x/oauth2"
)

// origin is where a program has kept a secret until now, for Cache.Adopt and
// Entries.Adopt.
type origin struct {
	read   func(context.Context) ([]byte, error)
	remove func(context.Context) error
}

// plainFile is a file in plain text, such as that of the MSAL extensions' package
// accessor/file, with its lock file.
func plainFile(path string) origin {
	return origin{
		read: func(context.Context) ([]byte, error) { return os.ReadFile(path) },
		remove: func(context.Context) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			if err := os.Remove(path + ".lockfile"); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		},
	}
}

// goKeyringItem is an item of zalando/go-keyring.
func goKeyringItem(service, user string) origin {
	return origin{
		read: func(context.Context) ([]byte, error) {
			secret, err := gokeyring.Get(service, user)
			if errors.Is(err, gokeyring.ErrNotFound) {
				return nil, fs.ErrNotExist
			}
			return []byte(secret), err
		},
		remove: func(context.Context) error { return gokeyring.Delete(service, user) },
	}
}

// dpapiFile is a file that is nothing but a blob of Windows' DPAPI, such as that of
// the MSAL extensions on Windows.
func dpapiFile(path string) origin {
	plain := plainFile(path)
	return origin{
		read: func(ctx context.Context) ([]byte, error) {
			blob, err := plain.read(ctx)
			if err != nil {
				return nil, err
			}
			return unprotect(blob)
		},
		remove: plain.remove,
	}
}

// tokenFile is the token.json of many quickstarts: an oauth2.Token as JSON, often
// readable by everybody. It is for Source.Adopt.
func tokenFile(path string) (read func(context.Context) (*oauth2.Token, error), remove func(context.Context) error) {
	return func(context.Context) (*oauth2.Token, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var t oauth2.Token
		if json.Unmarshal(data, &t) != nil {
			return nil, fmt.Errorf("%s has no token in it", path) // not the error of json: it may quote one
		}
		return &t, nil
	}, func(context.Context) error { return os.Remove(path) }
}
