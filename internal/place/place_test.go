package place_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/place"
)

func TestOf(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	here, there := filepath.Join(base, "here"), filepath.Join(base, "there")
	at := func(dir, name string) layout.Cache { return layout.Cache{Dir: dir, Name: name} }
	file := func(path string) func(t *testing.T) {
		return func(t *testing.T) { require.NoError(t, os.WriteFile(path, nil, 0o600)) }
	}
	link := func(path, to string) func(t *testing.T) {
		return func(t *testing.T) { require.NoError(t, os.Symlink(to, path)) }
	}
	own, others := at(here, "app"), at(there, "other")
	blob := filepath.Join(there, "blob")
	for name, c := range map[string]struct {
		make  []func(*testing.T)
		links bool
		want  place.Place
	}{
		"nothing": {nil, false, place.Place{Encrypted: own.Encrypted(), Plaintext: own.Plaintext(), Lock: own.Lock()}},
		"two files": {[]func(*testing.T){file(own.Encrypted()), file(own.Plaintext())}, false,
			place.Place{Encrypted: own.Encrypted(), Plaintext: own.Plaintext(), Lock: own.Lock()}},
		"a link to another cache's file": {[]func(*testing.T){link(own.Encrypted(), others.Encrypted())}, true,
			place.Place{Encrypted: others.Encrypted(), Plaintext: own.Plaintext(), Lock: others.Lock()}},
		"a link to a file of any name": {[]func(*testing.T){link(own.Encrypted(), blob)}, true,
			place.Place{Encrypted: blob, Plaintext: own.Plaintext(), Lock: blob + ".lock"}},
		"two links to one folder": {[]func(*testing.T){link(own.Encrypted(), others.Encrypted()), link(own.Plaintext(), others.Plaintext())}, true,
			place.Place{Encrypted: others.Encrypted(), Plaintext: others.Plaintext(), Lock: others.Lock()}},
		"a link to plaintext alone": {[]func(*testing.T){link(own.Plaintext(), others.Plaintext())}, true,
			place.Place{Encrypted: others.Encrypted(), Plaintext: others.Plaintext(), Lock: others.Lock()}},
		"a link to plaintext beside a file": {[]func(*testing.T){file(own.Encrypted()), link(own.Plaintext(), others.Plaintext())}, true,
			place.Place{Encrypted: own.Encrypted(), Plaintext: others.Plaintext(), Lock: own.Lock(), Apart: true}},
		"a link to plaintext of any name": {[]func(*testing.T){link(own.Plaintext(), blob)}, true,
			place.Place{Encrypted: own.Encrypted(), Plaintext: blob, Lock: own.Lock(), Apart: true}},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.RemoveAll(here))
			for _, dir := range []string{here, there} {
				require.NoError(t, os.MkdirAll(dir, 0o700))
			}
			if c.links && runtime.GOOS == "windows" {
				c.make = nil
				c.want = place.Place{Encrypted: own.Encrypted(), Plaintext: own.Plaintext(), Lock: own.Lock()}
			}
			for _, make := range c.make {
				make(t)
			}
			got, err := place.Of(here, "app")
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	if runtime.GOOS == "windows" {
		return
	}
	t.Run("a link that leads in a circle", func(t *testing.T) {
		require.NoError(t, os.RemoveAll(here))
		require.NoError(t, os.MkdirAll(here, 0o700))
		link(own.Plaintext(), own.Plaintext())(t)
		got, err := place.Of(here, "app")
		require.NoError(t, err, "plaintext is refused when it is used")
		require.Equal(t, own.Plaintext(), got.Plaintext)
		link(own.Encrypted(), own.Encrypted())(t)
		_, err = place.Of(here, "app")
		require.Error(t, err)
	})
}
