package securefile_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/test/sweep"
)

// With this variable set, the test program is a child that does one thing.
const childMode = "TOKENKEEP_TEST_CHILD"

func init() {
	if os.Getenv(childMode) != "" {
		runtime.LockOSThread() // for sweep.Begin
	}
}

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(child(mode, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func child(mode string, args []string) int {
	becomeUser()
	path := args[0]
	sweep.Begin()
	var err error
	switch mode {
	case "replace":
		_, err = securefile.Replace(context.Background(), path, []byte(args[1]))
	case "look and replace": // what Replace must not do
		if _, err = os.ReadDir(filepath.Dir(path)); err == nil {
			_, err = securefile.Replace(context.Background(), path, []byte(args[1]))
		}
	case "in place": // what Replace must not be
		err = os.WriteFile(path, []byte(args[1]), 0o600)
	case "check folder":
		err = securefile.CheckDir(path)
	case "make empty":
		if _, err = securefile.MakeDir(filepath.Dir(path)); err == nil {
			err = securefile.MakeEmpty(path)
		}
	case "remove":
		err = securefile.Remove(context.Background(), path)
	case "rename":
		err = securefile.Rename(context.Background(), path, args[1])
	case "read":
		var data []byte
		data, _, err = securefile.Read(context.Background(), path, limit)
		fmt.Printf("%s", data)
	case "loop", "loop in place":
		err = loop(path, mode)
	case "hold": // open, until the end of standard input
		var f *os.File
		if f, err = os.Open(path); err == nil {
			fmt.Println("open")
			io.Copy(io.Discard, os.Stdin)
			err = f.Close()
		}
	case "read loop": // until the end of standard input
		err = readLoop(path)
	}
	if err != nil {
		fmt.Println(err)
		var insecure *securefile.Error
		if errors.As(err, &insecure) {
			fmt.Println(insecure.Remedy())
		}
		var re *securefile.ReplaceError
		if errors.As(err, &re) {
			fmt.Printf("\nstored=%s\n", re.Stored)
		}
		return 1
	}
	return 0
}

// loop saves 1, 2, 3… and reports each before and after, as 8 bytes on standard
// output, until it is killed.
func loop(path, mode string) error {
	for n := uint64(1); ; n++ {
		report(n)
		data := numbered(n)
		if mode == "loop in place" {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				return err
			}
		} else if _, err := securefile.Replace(context.Background(), path, data[:100], data[100:]); err != nil {
			return err
		}
		report(n)
	}
}

// readLoop reads what loop saves until the end of standard input.
func readLoop(path string) error {
	over := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(over) }()
	fmt.Println("reading")
	for {
		data, _, err := securefile.Read(context.Background(), path, limit)
		if err == nil {
			_, err = number(data)
		}
		if err != nil {
			return err
		}
		select {
		case <-over:
			return nil
		default:
		}
	}
}

func report(n uint64) {
	if _, err := os.Stdout.Write(binary.BigEndian.AppendUint64(nil, n)); err != nil {
		os.Exit(1)
	}
}

func numbered(n uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, n), 50_000)
}

// number returns the n of numbered(n), or an error if data is not that.
func number(data []byte) (uint64, error) {
	if len(data) < 8 {
		return 0, fmt.Errorf("%d bytes", len(data))
	}
	n := binary.BigEndian.Uint64(data)
	if !bytes.Equal(data, numbered(n)) {
		return n, fmt.Errorf("torn, %d bytes", len(data))
	}
	return n, nil
}
