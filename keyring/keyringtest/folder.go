package keyringtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// folder keeps each item in a file, which it replaces atomically.
type folder string

type file struct {
	Item
	Secret []byte // JSON keeps any bytes
}

func (f folder) path(i Item) string {
	name := sha256.Sum256([]byte(i.Service + "\x00" + i.User))
	return filepath.Join(string(f), hex.EncodeToString(name[:])+".json")
}

func (f folder) get(i Item) (string, error) {
	content, err := read(f.path(i))
	if errors.Is(err, fs.ErrNotExist) {
		return "", persistence.ErrNotFound
	}
	return string(content.Secret), err
}

func (f folder) set(i Item, secret string) error {
	text, err := json.Marshal(file{i, []byte(secret)})
	if err != nil {
		return err
	}
	temp := filepath.Join(string(f), rand.Text()+".tmp")
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return err
	}
	if err := os.Rename(temp, f.path(i)); err != nil {
		os.Remove(temp)
		return err
	}
	return nil
}

func (f folder) delete(i Item) error {
	err := os.Remove(f.path(i))
	if errors.Is(err, fs.ErrNotExist) {
		return persistence.ErrNotFound
	}
	return err
}

func (f folder) all() (map[Item]string, error) {
	names, err := filepath.Glob(filepath.Join(string(f), "*.json"))
	if err != nil {
		return nil, err
	}
	items := map[Item]string{}
	for _, name := range names {
		content, err := read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since
		}
		if err != nil {
			return nil, err
		}
		items[content.Item] = string(content.Secret)
	}
	return items, nil
}

func read(name string) (content file, err error) {
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, &content)
	}
	return content, err
}
