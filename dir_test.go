package tokenkeep

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDataDir(t *testing.T) {
	root := t.TempDir() // absolute on every platform
	home := filepath.Join(root, "home")
	top := filepath.VolumeName(root) + string(filepath.Separator)
	for name, c := range map[string]struct {
		goos   string
		env    map[string]string
		want   string // "" for an error
		system string // what the system says
	}{
		"linux":                               {"linux", map[string]string{"HOME": home}, filepath.Join(home, ".local", "share"), ""},
		"linux, XDG":                          {"linux", map[string]string{"HOME": home, "XDG_DATA_HOME": root}, root, ""},
		"linux, XDG without a home":           {"linux", map[string]string{"XDG_DATA_HOME": root}, root, ""},
		"linux, XDG is relative":              {"linux", map[string]string{"HOME": home, "XDG_DATA_HOME": "data"}, filepath.Join(home, ".local", "share"), ""},
		"linux, no home":                      {"linux", nil, "", ""},
		"linux, home is relative":             {"linux", map[string]string{"HOME": "home"}, "", ""},
		"linux, a service without a home":     {"linux", map[string]string{"STATE_DIRECTORY": root + ":" + home}, root, ""},
		"linux, a service whose home is /":    {"linux", map[string]string{"HOME": "/", "STATE_DIRECTORY": root}, root, ""},
		"linux, a service, home is missing":   {"linux", map[string]string{"HOME": home, "STATE_DIRECTORY": root}, root, ""},
		"linux, a service with a home":        {"linux", map[string]string{"HOME": root, "STATE_DIRECTORY": home}, filepath.Join(root, ".local", "share"), ""},
		"linux, a service with XDG":           {"linux", map[string]string{"XDG_DATA_HOME": home, "STATE_DIRECTORY": root}, home, ""},
		"linux, home is / and nothing is set": {"linux", map[string]string{"HOME": top}, filepath.Join(top, ".local", "share"), ""},
		"macOS":                               {"darwin", map[string]string{"HOME": home, "XDG_DATA_HOME": root}, filepath.Join(home, "Library", "Application Support"), ""},
		"Windows":                             {"windows", map[string]string{"LocalAppData": root}, root, ""},
		"Windows, not set":                    {"windows", nil, "", ""},
		"FreeBSD":                             {"freebsd", map[string]string{"HOME": home}, filepath.Join(home, ".local", "share"), ""},
		"macOS, a launchd daemon":             {"darwin", nil, filepath.Join(home, "Library", "Application Support"), home},
		"macOS, home is relative":             {"darwin", map[string]string{"HOME": "home"}, "", home},
		"macOS, nobody knows":                 {"darwin", nil, "", ""},
		"Windows, minimal":                    {"windows", nil, root, root},
		"Windows, relative":                   {"windows", map[string]string{"LocalAppData": "data"}, root, root},
	} {
		t.Run(name, func(t *testing.T) {
			if c.env["STATE_DIRECTORY"] != "" && filepath.VolumeName(root) != "" {
				return // systemd separates paths by colons; here they have some
			}
			got, err := dataDir(c.goos, func(key string) string { return c.env[key] }, func() string { return c.system })
			if c.want == "" {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}
