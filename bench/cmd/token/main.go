// Command token is a small program for the benchmark Start: it opens the cache in a
// folder and prints what it holds.
//
//	token DIR STORE
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/fallback"
)

func main() {
	data, err := load(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.Write(data)
}

func load(dir, store string) ([]byte, error) {
	c, err := tokenkeep.Open(context.Background(), tokenkeep.Config{Name: "bench", Dir: dir, Store: store, AllowPlaintext: true,
		Warn: func(fallback.Warning) {}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return nil, err
	}
	return c.Load(context.Background())
}
