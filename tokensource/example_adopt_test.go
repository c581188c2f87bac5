package tokensource_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

// tokenFile is a program's old file, which holds the tokens of several hosts.
type tokenFile struct{ path string }

func (f tokenFile) load() (map[string]*oauth2.Token, error) {
	data, err := os.ReadFile(f.path)
	if err != nil {
		return nil, err // if there is no file it is fs.ErrNotExist
	}
	var tokens map[string]*oauth2.Token
	err = json.Unmarshal(data, &tokens)
	return tokens, err
}

// remove takes one token out of the file, and with the last one removes the file.
func (f tokenFile) remove(host string) error {
	tokens, err := f.load()
	if err != nil {
		return err
	}
	if delete(tokens, host); len(tokens) == 0 {
		return os.Remove(f.path)
	}
	data, err := json.Marshal(tokens)
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(f.path+".new", f.path)
}

// A program takes over its own file with the tokens of several hosts. It may be killed
// at any point: the next run goes on.
func ExampleSource_Adopt() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	old := tokenFile{filepath.Join(dir, "token-cache.json")}
	err = os.WriteFile(old.path, []byte(`{
		"a.example": {"access_token": "at-a", "refresh_token": "rt-a", "expiry": "2026-01-01T00:00:00Z"},
		"b.example": {"access_token": "at-b", "refresh_token": "rt-b", "expiry": "2026-01-01T00:00:00Z"}}`), 0o600)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	cache, err := persistence.New(persistence.NewMemory()) // or tokenkeep.Open
	if err != nil {
		panic(err)
	}

	tokens, err := old.load()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		panic(err)
	}
	for host, token := range tokens {
		source, err := tokensource.New(ctx, cache, host, &oauth2.Config{
			ClientID: "contoso-cli", Endpoint: oauth2.Endpoint{TokenURL: "https://" + host + "/oauth/token"},
		})
		if err != nil {
			panic(err)
		}
		_, err = source.Adopt(ctx,
			func(context.Context) (*oauth2.Token, error) { return token, nil },
			func(context.Context) error { return old.remove(host) })
		if err != nil {
			panic(err)
		}
	}

	keys, err := tokensource.Keys(ctx, cache)
	fmt.Println(keys, err)
	_, err = os.Stat(old.path)
	fmt.Println("the old file is gone:", errors.Is(err, fs.ErrNotExist))
	// Output:
	// [a.example b.example] <nil>
	// the old file is gone: true
}
