//go:build !windows

package main

import "errors"

func unprotect([]byte) ([]byte, error) { return nil, errors.ErrUnsupported }
