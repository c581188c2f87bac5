package command

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// session is what is special about where this runs.
type session struct {
	ssh, container, wsl, sudo, unit bool
	desktop                         string // its name, if it says one
}

func (s session) ids() []string {
	ids := []string{}
	for _, situation := range []struct {
		is bool
		id string
	}{{s.ssh, "ssh"}, {s.container, "container"}, {s.wsl, "wsl"}, {s.sudo, "sudo"}, {s.unit, "systemd-unit"}, {s.desktop != "", "desktop"}} {
		if situation.is {
			ids = append(ids, situation.id)
		}
	}
	return ids
}

func (s session) String() string {
	var words []string
	if s.desktop != "" {
		words = append(words, "a desktop ("+s.desktop+")")
	}
	if s.ssh {
		words = append(words, "over SSH")
	}
	if s.container {
		words = append(words, "in a container")
	}
	if s.wsl {
		words = append(words, "in the Windows Subsystem for Linux")
	}
	if s.sudo {
		words = append(words, "through sudo")
	}
	if s.unit {
		words = append(words, "in a systemd unit")
	}
	if words == nil {
		return "no desktop"
	}
	return strings.Join(words, ", ")
}

// findSession looks at the environment, and for what runtimes of containers
// leave in the file system.
func (c *call) findSession() session {
	s := session{
		ssh:  c.Env("SSH_CONNECTION") != "" || c.Env("SSH_TTY") != "",
		sudo: c.Env("SUDO_UID") != "" && os.Geteuid() == 0,
		container: c.exists("/.dockerenv") || c.exists("/run/.containerenv") ||
			c.Env("container") != "" || c.Env("KUBERNETES_SERVICE_HOST") != "",
		wsl:     c.Env("WSL_DISTRO_NAME") != "" || c.exists("/proc/sys/fs/binfmt_misc/WSLInterop"),
		desktop: short(c.Env("XDG_CURRENT_DESKTOP")),
	}
	if s.desktop == "" && !s.ssh {
		switch {
		case isWindows:
			s.desktop = "Windows"
		case isDarwin:
			s.desktop = "macOS"
		case c.Env("WAYLAND_DISPLAY") != "" || c.Env("DISPLAY") != "":
			s.desktop = "unnamed"
		}
	}
	// Programs of a desktop run in units as well.
	s.unit = c.Env("INVOCATION_ID") != "" && s.desktop == "" && !s.ssh && !isTerminal(c.Stdin)
	return s
}

func (c *call) exists(path string) bool {
	_, err := os.Stat(filepath.Join(c.Root+"/", path))
	return err == nil
}

func checkSession(_ context.Context, x *doctorRun) checkResult {
	o := checkResult{Summary: x.session.String()}
	if x.session.sudo {
		o.problem(finding{ID: "session.sudo",
			What:   "This runs through sudo, as root. A program that runs like this can create files of root in your home folder. Without sudo it cannot use them then.",
			Remedy: "Run it, and programs that sign you in, without sudo."})
	}
	return o
}
