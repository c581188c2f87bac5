package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// With these variables set, the test program is a child at a console: it asks in
// the way that the first one says, and writes an answer to the file of the second.
const (
	consoleMode   = "TOKENKEEP_TEST_CONSOLE"
	consoleResult = "TOKENKEEP_TEST_RESULT"
)

func TestMain(m *testing.M) {
	if way := os.Getenv(consoleMode); way != "" {
		if err := askAtConsole(way, os.Getenv(consoleResult)); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// answer is what a child got from its console.
type answer struct {
	Line          []byte
	Err           string
	Interrupted   bool   // by Ctrl-C
	Before, After uint32 // the console's mode
}

func askAtConsole(way, result string) error {
	in, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	out, err := os.OpenFile("CONOUT$", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	// A program can be started so that it ignores Ctrl-C.
	_, _, _ = windows.NewLazySystemDLL("kernel32.dll").NewProc("SetConsoleCtrlHandler").Call(0, 0)
	pressed, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(pressed, time.Minute)
	defer cancel()
	console := windows.Handle(in.Fd())
	var a answer
	if err := windows.GetConsoleMode(console, &a.Before); err != nil {
		return err
	}
	a.Before |= windows.ENABLE_ECHO_INPUT | windows.ENABLE_LINE_INPUT | windows.ENABLE_PROCESSED_INPUT
	if windows.SetConsoleMode(console, a.Before|windows.ENABLE_VIRTUAL_TERMINAL_INPUT) == nil {
		a.Before |= windows.ENABLE_VIRTUAL_TERMINAL_INPUT // as some shells leave it
	}
	c := &call{Machine: &Machine{Stdin: in, Stderr: out}}
	switch way {
	case "hidden":
		a.Line, err = c.readHidden(ctx, "Passphrase: ")
	case "raw": // escape sequences, and no line that the console edits
		if err := windows.SetConsoleMode(console, a.Before&^(windows.ENABLE_ECHO_INPUT|windows.ENABLE_LINE_INPUT)); err != nil {
			return err
		}
		fmt.Fprint(out, "Passphrase: ")
		for b := make([]byte, 1); err == nil && b[0] != '\r'; {
			if _, err = in.Read(b); err == nil && b[0] != '\r' {
				a.Line = append(a.Line, b[0])
			}
		}
		err = nil
		_ = windows.SetConsoleMode(console, a.Before)
	}
	if err != nil {
		a.Err, a.Interrupted = err.Error(), pressed.Err() != nil
	}
	if err := windows.GetConsoleMode(console, &a.After); err != nil {
		return err
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return os.WriteFile(result, text, 0o600)
}

// atConsole runs a child that asks in this way, in a pseudo console, types keys
// when it has prompted, and returns what it got and what it has shown.
func atConsole(t *testing.T, way, keys string) (answer, string) {
	t.Helper()
	result := filepath.Join(t.TempDir(), "result")
	t.Setenv(consoleMode, way)
	t.Setenv(consoleResult, result)

	inRead, inWrite, err := os.Pipe()
	require.NoError(t, err)
	outRead, outWrite, err := os.Pipe()
	require.NoError(t, err)
	defer outRead.Close()
	var console windows.Handle
	err = windows.CreatePseudoConsole(windows.Coord{X: 80, Y: 25}, windows.Handle(inRead.Fd()), windows.Handle(outWrite.Fd()), 0, &console)
	env.Require(t, err == nil, fmt.Sprintf("needs pseudo consoles, which Windows has since version 1809 of Windows 10: %v", err))

	list, err := windows.NewProcThreadAttributeList(1)
	require.NoError(t, err)
	defer list.Delete()
	// The attribute is the handle, not its address.
	require.NoError(t, list.Update(windows.PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE, *(*unsafe.Pointer)(unsafe.Pointer(&console)), unsafe.Sizeof(console)))
	startup := windows.StartupInfoEx{ProcThreadAttributeList: list.List()}
	startup.Cb = uint32(unsafe.Sizeof(startup))
	startup.Flags = windows.STARTF_USESTDHANDLES // those of the console, not this program's
	program, err := os.Executable()
	require.NoError(t, err)
	line, err := windows.UTF16PtrFromString(windows.EscapeArg(program))
	require.NoError(t, err)
	var process windows.ProcessInformation
	require.NoError(t, windows.CreateProcess(nil, line, nil, nil, false, windows.EXTENDED_STARTUPINFO_PRESENT, nil, nil, &startup.StartupInfo, &process))
	windows.CloseHandle(process.Thread)
	defer windows.CloseHandle(process.Process)
	inRead.Close()
	outWrite.Close()

	prompted, shown := make(chan struct{}), make(chan string, 1)
	go func() {
		var all bytes.Buffer
		asked := false
		for buf := make([]byte, 4096); ; {
			n, err := outRead.Read(buf)
			all.Write(buf[:n])
			if !asked && strings.Contains(all.String(), "Passphrase:") {
				asked = true
				close(prompted)
			}
			if err != nil {
				shown <- all.String()
				return
			}
		}
	}()
	ended := make(chan struct{})
	go func() {
		windows.WaitForSingleObject(process.Process, windows.INFINITE)
		close(ended)
	}()
	select {
	case <-prompted:
		_, err = inWrite.WriteString(keys)
		require.NoError(t, err)
		<-ended
	case <-ended:
	}
	windows.ClosePseudoConsole(console)
	inWrite.Close()
	all := <-shown
	var code uint32
	require.NoError(t, windows.GetExitCodeProcess(process.Process, &code))
	text, err := os.ReadFile(result)
	require.NoError(t, err, "the child has ended with %#x and has shown: %q", code, all)
	var a answer
	require.NoError(t, json.Unmarshal(text, &a))
	return a, all
}

// At the hidden prompt Backspace edits what is typed, nothing of it is shown, and
// the console is put right.
func TestConPTY(t *testing.T) {
	t.Run("Backspace", func(t *testing.T) {
		a, shown := atConsole(t, "hidden", "planted-x\x7fy\r")
		require.Empty(t, a.Err)
		require.Equal(t, "planted-y", string(a.Line))
		require.Equal(t, a.Before, a.After)
		require.NotContains(t, shown, "planted")
	})
	t.Run("interrupted", func(t *testing.T) {
		if env.Wine() {
			t.Log("Wine 8 ends a program at Ctrl-C before Go hears of it")
			return
		}
		a, shown := atConsole(t, "hidden", "planted\x03")
		require.Contains(t, a.Err, "interrupted")
		require.True(t, a.Interrupted, "only its own time limit has ended it")
		require.Empty(t, a.Line)
		require.Equal(t, a.Before, a.After)
		require.NotContains(t, shown, "planted")
	})
	t.Run("control: a raw console", func(t *testing.T) {
		a, _ := atConsole(t, "raw", "planted-x\x7fy\r")
		t.Logf("a raw console gives %q", a.Line)
		require.NotEqual(t, "planted-y", string(a.Line), "nothing shows that Backspace could come as a character")
	})
}
