package command

import (
	"os"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/internal/shell"
)

// redact removes the user's name from a text of the doctor, unless -show-names is
// set: the home folder becomes ~, and in the path of another home folder of the user,
// the name becomes USER. It is not for commands; see commandPath.
func (c *call) redact(text string) string {
	if c.names {
		return text
	}
	for _, home := range homes() {
		text = replacePath(text, home, "~")
	}
	for _, name := range c.userNames() {
		others := []string{"/home/" + name, "/Users/" + name, `C:\Users\` + name}
		if name == c.Env("SUDO_USER") { // whose home folder is not that of this process
			if u, err := osuser.Lookup(name); err == nil && filepath.Base(u.HomeDir) == name {
				others = append(others, u.HomeDir)
			}
		}
		for _, home := range others {
			text = replacePath(text, home, strings.TrimSuffix(home, name)+"USER")
		}
	}
	return text
}

// replacePath replaces path in the text, if it is a whole path or the beginning of
// one, but not in the middle of one.
func replacePath(text, path, with string) string {
	var b strings.Builder
	for from := 0; ; {
		i := strings.Index(text[from:], path)
		if i < 0 {
			b.WriteString(text[from:])
			return b.String()
		}
		end := from + i + len(path)
		before, _ := utf8.DecodeLastRuneInString(text[:from+i])
		b.WriteString(text[from : from+i])
		if inName(before) || strings.ContainsRune(`./\~`, before) || goesOn(text[end:]) {
			b.WriteString(path)
		} else {
			b.WriteString(with)
		}
		from = end
	}
}

// inName reports whether r is part of a file's name for certain.
func inName(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' || r == '-')
}

// goesOn reports whether the file name before rest continues in rest. A full stop may
// be the end of the sentence instead.
func goesOn(rest string) bool {
	rest = strings.TrimLeft(rest, ".")
	r, _ := utf8.DecodeRuneInString(rest)
	return inName(r)
}

// homes are the names that the home folder has.
func homes() (homes []string) {
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) || filepath.Dir(home) == home {
		return nil
	}
	home = filepath.Clean(home)
	if real, err := filepath.EvalSymlinks(home); err == nil && real != home {
		homes = append(homes, real)
	}
	return append(homes, home)
}

func (c *call) userNames() (names []string) {
	for _, v := range []string{"SUDO_USER", "USER", "LOGNAME", "USERNAME"} {
		if name := c.Env(v); name != "" && name != "root" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// commandPath returns a path for a command to be pasted. Unless -show-names is set, it
// does not name the home folder: in commands of this program and of Unix that is ~.
func (c *call) commandPath(path string) string { return c.pathWithHome(path, "~") }

// pathWithHome is commandPath with the word for the home folder on Windows.
func (c *call) pathWithHome(path, home string) string {
	if !c.names {
		for _, h := range homes() {
			rest, below := strings.CutPrefix(path, h+string(filepath.Separator))
			switch {
			case !below && path != h:
			case isWindows:
				return shell.Quote(home + strings.TrimPrefix(path, h))
			case below:
				return "~/" + shell.Quote(rest) // ~ means nothing in quotes
			default:
				return "~"
			}
		}
	}
	return shell.Quote(path)
}

// inFolder returns a command of this program for the folder that this call is about.
func (c *call) inFolder(command string) string {
	switch {
	case c.dir == "":
		return command
	case c.command.public:
		return command + " -dir " + c.commandPath(c.dir)
	}
	return command + " -dir " + shell.Quote(c.dir)
}
