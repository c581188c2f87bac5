package encrypted

import (
	"context"
	"encoding/base64"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Nothing that reads a file waits longer than its context for another program that
// keeps the file open and does not share it.
func TestForeignReader(t *testing.T) {
	path, key := tempPath(t), t.TempDir()+`\key`
	require.NoError(t, os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(randomKey())), 0o600))
	require.NoError(t, newFile(t, path, KeyFile(key)).Save(ctx, []byte("one")))
	for name, c := range map[string]struct {
		path string
		call func(context.Context) error
	}{
		"StoredSource": {path, func(ctx context.Context) error { _, err := StoredSource(ctx, path); return err }},
		"Check":        {path, func(ctx context.Context) error { return newFile(t, path, KeyFile(key)).Check(ctx) }},
		"Load":         {path, func(ctx context.Context) error { _, err := newFile(t, path, KeyFile(key)).Load(ctx); return err }},
		"the key file": {key, func(ctx context.Context) error { _, _, err := KeyFile(key).NewKey(ctx, newID()); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, c.call(ctx), "control: nobody keeps it open")
			name, err := windows.UTF16PtrFromString(c.path)
			require.NoError(t, err)
			h, err := windows.CreateFile(name, windows.GENERIC_READ, 0, nil, windows.OPEN_EXISTING, 0, 0)
			require.NoError(t, err)
			defer windows.CloseHandle(h)
			short, cancel := context.WithTimeout(ctx, time.Second/5)
			defer cancel()
			err = c.call(short)
			require.ErrorIs(t, err, context.DeadlineExceeded, "it has waited for something else than its context")
			require.ErrorContains(t, err, "kept open by another program")
			require.Contains(t, persistence.Remedy(err), "Close the program")
		})
	}
}
