package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// hide takes what is the user's own out of output: the home folder becomes ~,
// and the user's name USER, unless names were asked for.
func (c *call) hide(text []byte) []byte {
	if c.names {
		return text
	}
	s := string(text)
	for _, home := range c.homes() {
		h := regexp.QuoteMeta(home)
		// A path in quotes, as in a command: ~ must stand outside of them.
		quoted := regexp.MustCompile(`'` + h + `[/\\]([^']*)'`)
		s = quoted.ReplaceAllStringFunc(s, func(m string) string { return shellPath("~/" + m[len(home)+2:len(m)-1]) })
		s = regexp.MustCompile(h+`($|[^\pL\pN._-])`).ReplaceAllString(s, "~$1")
	}
	if name := c.userName(); name != "" {
		s = regexp.MustCompile(`([/\\])`+regexp.QuoteMeta(name)+`($|[^\pL\pN._-])`).ReplaceAllString(s, "${1}USER$2")
	}
	return []byte(s)
}

// homes are the names that the home folder has, also as JSON writes them.
func (c *call) homes() (homes []string) {
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) || filepath.Dir(home) == home {
		return nil
	}
	add := func(h string) {
		homes = append(homes, h)
		if quoted, err := json.Marshal(h); err == nil {
			if inner := string(quoted[1 : len(quoted)-1]); inner != h {
				homes = append(homes, inner)
			}
		}
	}
	home = filepath.Clean(home)
	if real, err := filepath.EvalSymlinks(home); err == nil && real != home {
		add(real)
	}
	add(home)
	return homes
}

func (c *call) userName() string {
	for _, v := range []string{"SUDO_USER", "USER", "LOGNAME", "USERNAME"} {
		if name := c.env(v); name != "" && name != "root" {
			return name
		}
	}
	return ""
}

var plainPath = regexp.MustCompile(`^[\pL\pN/._+@:~-]*$`)

// shellPath writes a path as a shell takes it.
func shellPath(path string) string {
	if plainPath.MatchString(path) {
		return path
	}
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return "~/" + quote(rest)
	}
	return quote(path)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// commandPath is a path in a command to be pasted. It is always in quotes, in
// which hide finds it.
func commandPath(path string) string { return quote(path) }
