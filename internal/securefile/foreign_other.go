//go:build !windows

package securefile

import (
	"context"
	"io/fs"
	"os"
)

// OpenForeign opens another program's file to read it, without any check.
func OpenForeign(_ context.Context, path string) (*os.File, error) { return os.Open(path) }

// IsLocked reports false: here locks keep nobody from reading.
func IsLocked(error) bool { return false }

// ReadDir is os.ReadDir: here no program keeps others from opening a folder.
func ReadDir(_ context.Context, dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }
