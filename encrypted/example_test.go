package encrypted_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func tempDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "tokenkeep")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

// A continuous integration job has its key in a variable.
func Example() {
	dir, remove := tempDir()
	defer remove()
	os.Setenv("CONTOSO_CACHE_KEY", "XobzQ2EcxD7AQJ2H8mLE1pZB7sy3CuyPqBoJfVyHflw=") // openssl rand -base64 32
	defer os.Unsetenv("CONTOSO_CACHE_KEY")

	ctx := context.Background()
	file, err := encrypted.New(filepath.Join(dir, "contoso-cli"), encrypted.Env("CONTOSO_CACHE_KEY"), &encrypted.Options{Name: "contoso-cli"})
	if err != nil {
		log.Fatal(err)
	}
	if err := file.Check(ctx); err != nil { // before anybody signs in
		log.Fatal(err)
	}
	if err := file.Save(ctx, []byte("tokens")); err != nil {
		log.Fatal(err)
	}
	data, err := file.Load(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", data)

	onDisk, err := os.ReadFile(filepath.Join(dir, "contoso-cli"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(string(onDisk), "tokens"))
	// Output:
	// tokens
	// false
}

// A mistyped passphrase is told from a damaged file.
func ExamplePassphrase() {
	dir, remove := tempDir()
	defer remove()
	path := filepath.Join(dir, "cache")
	open := func(passphrase string) *encrypted.File {
		file, err := encrypted.New(path, encrypted.Passphrase(func(context.Context) ([]byte, error) {
			return []byte(passphrase), nil // a program asks a person here
		}, nil), nil)
		if err != nil {
			log.Fatal(err)
		}
		return file
	}

	ctx := context.Background()
	if err := open("correct horse battery staple").Save(ctx, []byte("tokens")); err != nil {
		log.Fatal(err)
	}
	_, err := open("correct horse battery stable").Load(ctx)
	fmt.Println(errors.Is(err, persistence.ErrWrongKey), errors.Is(err, persistence.ErrCorrupt))
	// Output: true false
}

// To change a passphrase, or to leave it for another source, rotate the key.
func ExampleFile_Rotate() {
	dir, remove := tempDir()
	defer remove()
	passphrase := func(p string) encrypted.KeySource {
		return encrypted.Passphrase(func(context.Context) ([]byte, error) { return []byte(p), nil }, nil)
	}

	ctx := context.Background()
	file, err := encrypted.New(filepath.Join(dir, "cache"), passphrase("old"), nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := file.Save(ctx, []byte("tokens")); err != nil {
		log.Fatal(err)
	}
	if err := file.Rotate(ctx, passphrase("new")); err != nil {
		log.Fatal(err)
	}
	data, err := file.Load(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, key from %s\n", data, persistence.Describe(file).KeySource)
	// Output: tokens, key from passphrase
}
