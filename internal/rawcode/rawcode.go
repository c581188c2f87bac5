// Package rawcode attaches to an error what the operating system, or a program of it,
// has answered: an exit status, an error number, the name of a D-Bus error. Errors say
// what such an answer means. A person who reports a fault needs the answer itself, because
// its meaning may be misjudged, and texts of the system are translated.
package rawcode

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// coded is an error with a code. Its text is that of the error alone.
type coded struct {
	err  error
	code string
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// With returns err with a code, or nil for nil. The code says who has answered, and
// holds no secret and nothing that was stored.
func With(code string, err error) error {
	if err == nil {
		return nil
	}
	return &coded{err, code}
}

// Copy returns err with the codes of another error, which it does not wrap. who is what
// was called, or "".
func Copy(from error, who string, err error) error {
	codes := Of(from)
	slices.Reverse(codes)
	for _, code := range codes {
		if who != "" {
			code = who + ": " + code
		}
		err = With(code, err)
	}
	return err
}

// Of returns the codes of err, each once, from the outside in. The number of a
// syscall.Errno that err wraps is one, unless a code around it ends with it.
func Of(err error) (codes []string) {
	var visit func(error)
	visit = func(err error) {
		code := ""
		switch e := err.(type) {
		case *coded:
			code = e.code
		case syscall.Errno:
			code = Number(runtime.GOOS, e)
		}
		if code != "" && !slices.ContainsFunc(codes, func(c string) bool { return c == code || strings.HasSuffix(c, ": "+code) }) {
			codes = append(codes, code)
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			visit(e.Unwrap())
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				visit(err)
			}
		}
	}
	visit(err)
	return codes
}

// Number returns the number of an error of a system, a value of runtime.GOOS, as that
// system's documents have it.
func Number(system string, err syscall.Errno) string {
	if system == "windows" {
		return fmt.Sprintf("error %d (0x%X)", uint32(err), uint32(err))
	}
	return fmt.Sprintf("errno %d", int(err))
}
