package tokenkeep

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
)

// A packaged program is told that its folder in AppData is another one than that of
// other programs.
func TestDirThatWindowsCopies(t *testing.T) {
	root := t.TempDir()
	appData := filepath.Join(root, "AppData", "Local")
	before := copiedFolders
	t.Cleanup(func() { copiedFolders = before })
	for name, c := range map[string]struct {
		dir    string
		copied []string
		warned bool
	}{
		"in AppData":             {filepath.Join(appData, "contoso"), []string{appData}, true},
		"AppData itself":         {appData, []string{filepath.Join(root, "other"), appData}, true},
		"written otherwise":      {filepath.Join(root, "appdata", "LOCAL", "contoso"), []string{appData}, true},
		"outside of AppData":     {filepath.Join(root, ".contoso"), []string{appData}, false},
		"only a name like it":    {filepath.Join(root, "AppData", "Local2"), []string{appData}, false},
		"above it":               {filepath.Join(root, "AppData"), []string{appData}, false},
		"control: not packaged":  {filepath.Join(appData, "contoso"), nil, false},
		"in AppData, a relative": {"contoso", []string{root}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(root)
			copiedFolders = func() []string { return c.copied }
			var warnings []fallback.Warning
			_, err := Open(t.Context(), Config{Name: "contoso-cli", Dir: c.dir, Store: "plaintext", AllowPlaintext: true,
				Keyring: keyringtest.New(), Warn: func(w fallback.Warning) { warnings = append(warnings, w) }})
			require.NoError(t, err)
			told := slices.ContainsFunc(warnings, func(w fallback.Warning) bool { return strings.Contains(w.Reason, "Windows package") && w.Remedy != "" })
			require.Equal(t, c.warned, told, "%v", warnings)
		})
	}
}

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
