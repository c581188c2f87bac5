package tokenkeep

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDataDir(t *testing.T) {
	root := t.TempDir() // absolute on every platform
	home := filepath.Join(root, "home")
	for name, c := range map[string]struct {
		goos string
		env  map[string]string
		want string // "" for an error
	}{
		"linux":                               {"linux", map[string]string{"HOME": home}, filepath.Join(home, ".local", "share")},
		"linux, XDG":                          {"linux", map[string]string{"HOME": home, "XDG_DATA_HOME": root}, root},
		"linux, XDG without a home":           {"linux", map[string]string{"XDG_DATA_HOME": root}, root},
		"linux, XDG is relative":              {"linux", map[string]string{"HOME": home, "XDG_DATA_HOME": "data"}, filepath.Join(home, ".local", "share")},
		"linux, no home":                      {"linux", nil, ""},
		"linux, home is relative":             {"linux", map[string]string{"HOME": "home"}, ""},
		"linux, a service without a home":     {"linux", map[string]string{"STATE_DIRECTORY": root + ":" + home}, root},
		"linux, a service whose home is /":    {"linux", map[string]string{"HOME": "/", "STATE_DIRECTORY": root}, root},
		"linux, a service, home is missing":   {"linux", map[string]string{"HOME": home, "STATE_DIRECTORY": root}, root},
		"linux, a service with a home":        {"linux", map[string]string{"HOME": root, "STATE_DIRECTORY": home}, filepath.Join(root, ".local", "share")},
		"linux, a service with XDG":           {"linux", map[string]string{"XDG_DATA_HOME": home, "STATE_DIRECTORY": root}, home},
		"linux, home is / and nothing is set": {"linux", map[string]string{"HOME": "/"}, "/.local/share"},
		"macOS":                               {"darwin", map[string]string{"HOME": home, "XDG_DATA_HOME": root}, filepath.Join(home, "Library", "Application Support")},
		"Windows":                             {"windows", map[string]string{"LocalAppData": root}, root},
		"Windows, not set":                    {"windows", nil, ""},
		"FreeBSD":                             {"freebsd", map[string]string{"HOME": home}, filepath.Join(home, ".local", "share")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := dataDir(c.goos, func(key string) string { return c.env[key] })
			if c.want == "" {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}
