package command

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// The commands that doctor prints work as they are in cmd and in PowerShell, also where
// the home folder has a space in its name.
func TestCommandsForShells(t *testing.T) {
	home := filepath.Join(t.TempDir(), "Jane Doe")
	t.Setenv("USERPROFILE", home)
	c := &call{Machine: &Machine{Env: os.Getenv}}
	// Control: what PowerShell leaves of a path in quotes that has no space in it itself.
	folder := filepath.Join(home, "AppData")
	require.NoError(t, os.MkdirAll(folder, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "kept"), nil, 0o600))
	cmd := exec.Command("cmd")
	cmd.SysProcAttr = &syscall.SysProcAttr{CmdLine: `cmd /c del %USERPROFILE%\AppData\kept`}
	_ = cmd.Run() // whether del says that it has found nothing differs
	require.FileExists(t, filepath.Join(folder, "kept"))

	shells := map[string]func(command string) *exec.Cmd{
		"cmd": func(command string) *exec.Cmd {
			cmd := exec.Command("cmd")
			cmd.SysProcAttr = &syscall.SysProcAttr{CmdLine: "cmd /c " + command} // what cmd would read
			return cmd
		},
		"powershell": func(command string) *exec.Cmd { return exec.Command("powershell", "-NoProfile", "-Command", command) },
	}
	for name, shell := range shells {
		if env.Wine() && name == "powershell" { // there is none
			continue
		}
		for _, dir := range []string{`AppData\Local\tokenkeep`, "my files"} {
			folder := filepath.Join(home, dir)
			require.NoError(t, os.MkdirAll(folder, 0o700))
			paths := []string{filepath.Join(folder, "a.enc.damaged-1"), filepath.Join(folder, ".a.enc.0.tmp")}
			for _, path := range paths {
				require.NoError(t, os.WriteFile(path, nil, 0o600))
			}
			command := c.removeCommand(paths)
			require.NotContains(t, command, "Jane")
			out, err := shell(command).CombinedOutput()
			require.NoError(t, err, "%s: %s: %s", name, command, out)
			for _, path := range paths {
				require.NoFileExists(t, path, "%s: %s: %s", name, command, out)
			}
		}
	}
}
