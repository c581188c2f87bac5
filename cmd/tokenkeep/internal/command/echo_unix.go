//go:build unix

package command

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// signals are those that end the program in an orderly way: a question to the
// user is taken back, and the terminal put right.
var signals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// hideInput makes the terminal show nothing of what is typed. The terminal itself
// edits the line, so that Backspace works. restore puts the terminal right; with
// flush it also discards what was typed and not read, so that half a passphrase
// is not the next program's input.
func hideInput(terminal *os.File) (restore func(flush bool), err error) {
	fd := int(terminal.Fd())
	before, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG
	hidden.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, setTermios, &hidden); err != nil {
		return nil, err
	}
	return func(flush bool) {
		if flush {
			_ = unix.IoctlSetTermios(fd, setTermiosFlush, before)
		} else {
			_ = unix.IoctlSetTermios(fd, setTermios, before)
		}
	}, nil
}
