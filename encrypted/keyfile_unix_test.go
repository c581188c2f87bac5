//go:build unix

package encrypted

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// Secrets as Docker and Kubernetes mount them are taken, and nothing that others can
// change.
func TestKeyFileThatRootProvides(t *testing.T) {
	env.Require(t, os.Geteuid() == 0, "only root can make root's files")
	const user = 12345
	text := base64.StdEncoding.EncodeToString(randomKey())
	for name, c := range map[string]struct {
		user    int
		prepare func(t *testing.T, dir string) (path string)
		taken   bool
	}{
		"Docker's":                     {user, plainKey(text, 0o444, 0o755), true},
		"Docker's, for root":           {0, plainKey(text, 0o444, 0o755), true},
		"Kubernetes'":                  {user, kubernetesKey(text, 0o1777, 0o644), true},
		"Kubernetes', for a group":     {user, kubernetesKey(text, 0o3777, 0o440), true},
		"root's own, open to be read":  {0, plainKey(text, 0o644, 0o755), false},
		"others can write it":          {user, plainKey(text, 0o666, 0o755), false},
		"a group can write it":         {user, plainKey(text, 0o664, 0o755), false},
		"others can write the folder":  {user, plainKey(text, 0o444, 0o777), false},
		"others can change the link":   {user, kubernetesKey(text, 0o777, 0o644), false},
		"another user's":               {user, owned(plainKey(text, 0o444, 0o755), 777), false},
		"another user's link":          {user, owned(kubernetesKey(text, 0o1777, 0o644), 777), false},
		"the user's, closed to others": {user, owned(plainKey(text, 0o400, 0o755), user), true},
		"the user's, open to be read":  {user, owned(plainKey(text, 0o444, 0o755), user), false},
		"a folder":                     {user, func(_ *testing.T, dir string) string { return dir }, false},
		"too large for a key":          {user, plainKey(strings.Repeat("A", maxKeyText+1), 0o444, 0o755), false},
		"nothing":                      {user, func(_ *testing.T, dir string) string { return filepath.Join(dir, "key") }, false},
		"links in a circle":            {user, func(t *testing.T, dir string) string { return link(t, "key", filepath.Join(dir, "key")) }, false},
		"a pipe that nobody writes into": {user, func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "key")
			require.NoError(t, unix.Mkfifo(path, 0o444))
			return path
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			got, err := readMounted(c.prepare(t, dir), c.user)
			if !c.taken {
				require.Error(t, err)
				require.NotContains(t, err.Error(), text)
				return
			}
			require.NoError(t, err)
			require.Equal(t, text, string(got))
		})
	}

	// And by the front door.
	path := kubernetesKey(text, 0o1777, 0o444)(t, t.TempDir())
	f := newFile(t, tempPath(t), KeyFile(path))
	require.NoError(t, f.Save(ctx, []byte("one")))
	mustLoad(t, newFile(t, f.store.Path(), KeyFile(path)), "one")
}

// plainKey makes a key file of that mode in a folder of that mode.
func plainKey(text string, mode, folder os.FileMode) func(*testing.T, string) string {
	return func(t *testing.T, dir string) string {
		path := filepath.Join(dir, "key")
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
		require.NoError(t, os.Chmod(path, mode))
		require.NoError(t, os.Chmod(dir, folder))
		return path
	}
}

// kubernetesKey makes the links and folders of a secret volume.
func kubernetesKey(text string, volume, mode uint32) func(*testing.T, string) string {
	return func(t *testing.T, dir string) string {
		data := filepath.Join(dir, "..2026_01_01_00_00_00.123")
		require.NoError(t, os.Mkdir(data, 0o755))
		plainKey(text, os.FileMode(mode), 0o755)(t, data)
		link(t, filepath.Base(data), filepath.Join(dir, "..data"))
		path := link(t, "..data/key", filepath.Join(dir, "key"))
		sticky := map[bool]os.FileMode{true: os.ModeSticky}[volume&0o1000 != 0] | map[bool]os.FileMode{true: os.ModeSetgid}[volume&0o2000 != 0]
		require.NoError(t, os.Chmod(dir, os.FileMode(volume&0o777)|sticky))
		return path
	}
}

func owned(prepare func(*testing.T, string) string, uid int) func(*testing.T, string) string {
	return func(t *testing.T, dir string) string {
		path := prepare(t, dir)
		require.NoError(t, os.Lchown(path, uid, -1))
		return path
	}
}

func link(t *testing.T, to, path string) string {
	require.NoError(t, os.Symlink(to, path))
	return path
}
