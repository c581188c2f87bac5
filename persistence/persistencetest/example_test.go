package persistencetest_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// SessionFile is an application's own backend: one file in the folder of a
// session, which an encrypted file system protects.
type SessionFile struct{ path string }

func (f *SessionFile) Load(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, f.fail("load", err)
	}
	data, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, f.fail("load", persistence.ErrNotFound)
	} else if err != nil {
		return nil, f.fail("load", err)
	}
	return data, nil
}

func (f *SessionFile) Save(ctx context.Context, data []byte) error {
	if err := ctx.Err(); err != nil {
		return f.fail("save", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), "save-*") // mode 0600
	if err != nil {
		return f.fail("save", err)
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), f.path)
	}
	if err != nil {
		return f.fail("save", errors.Join(err, os.Remove(temp.Name())))
	}
	return nil
}

func (f *SessionFile) Delete(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return f.fail("delete", err)
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.fail("delete", err)
	}
	return nil
}

func (f *SessionFile) Describe() persistence.Description {
	return persistence.Description{Backend: "session", Location: f.path}
}

func (f *SessionFile) fail(op string, err error) error {
	return &persistence.Error{Op: op, Backend: "session", Location: f.path, Err: err}
}

func TestSessionFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("os.Rename fails there while a Load has the file open: a SessionFile for Windows has to try again, or to lock")
	}
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		path := filepath.Join(t.TempDir(), "cache")
		return func() (persistence.Persistence, error) { return &SessionFile{path}, nil }
	}, nil)
}

// A backend of one's own needs three methods, and a test that runs the suite on
// it:
//
//	func TestSessionFile(t *testing.T) {
//		persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
//			path := filepath.Join(t.TempDir(), "cache")
//			return func() (persistence.Persistence, error) { return &SessionFile{path}, nil }
//		}, nil)
//	}
func ExampleRun() {
	dir, err := os.MkdirTemp("", "session-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	f := &SessionFile{filepath.Join(dir, "cache")}
	_, err = f.Load(ctx)
	fmt.Println(errors.Is(err, persistence.ErrNotFound))
	fmt.Println(f.Save(ctx, []byte("{}")))
	data, err := f.Load(ctx)
	fmt.Printf("%s %v\n", data, err)
	// Output:
	// true
	// <nil>
	// {} <nil>
}

// The second Save fails as on a full disk.
func ExampleFaulty() {
	ctx := context.Background()
	p := persistencetest.Faulty(persistence.NewMemory(),
		persistencetest.Fault{Op: "Save", Call: 2, Err: errors.New("no space left on device")})
	fmt.Println(p.Save(ctx, []byte("first")))
	fmt.Println(p.Save(ctx, []byte("second")))
	data, _ := p.Load(ctx)
	fmt.Printf("%s\n", data)
	// Output:
	// <nil>
	// tokenkeep: save memory: no space left on device
	// first
}
