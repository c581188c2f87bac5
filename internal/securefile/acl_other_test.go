//go:build unix && !linux

package securefile_test

import "testing"

func setACL(t testing.TB, path string, list []byte) { t.Fatal("only on Linux") }
