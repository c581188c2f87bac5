package command

import (
	"os"

	"golang.org/x/sys/windows"
)

// signals are those that end the program in an orderly way: a question to the
// user is taken back, and the console put right.
var signals = []os.Signal{os.Interrupt}

// hideInput makes the console show nothing of what is typed. The console itself
// edits the line. It sends no escape sequences, which would make Backspace a part
// of what is typed. restore puts the console right; with flush it also discards
// what was typed and not read.
func hideInput(terminal *os.File) (restore func(flush bool), err error) {
	console := windows.Handle(terminal.Fd())
	var before uint32
	if err := windows.GetConsoleMode(console, &before); err != nil {
		return nil, err
	}
	if err := windows.SetConsoleMode(console, hiddenMode(before)); err != nil {
		return nil, err
	}
	return func(flush bool) {
		if flush {
			_ = windows.FlushConsoleInputBuffer(console)
		}
		_ = windows.SetConsoleMode(console, before)
	}, nil
}

func hiddenMode(mode uint32) uint32 {
	mode &^= windows.ENABLE_ECHO_INPUT | windows.ENABLE_VIRTUAL_TERMINAL_INPUT
	return mode | windows.ENABLE_LINE_INPUT | windows.ENABLE_PROCESSED_INPUT
}
