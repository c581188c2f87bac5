package proof

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/sweep"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func init() { programs["sweep"] = sweepProgram }

const (
	oldData = `{"AccessToken":{"a":{"secret":"old"}}}`
	newData = `{"AccessToken":{"a":{"secret":"new, and longer"}}}`
)

// sweepProgram does one thing, that is swept.
func sweepProgram(args []string) error {
	p, args := placeOf(args)
	ctx, cancel := patient()
	defer cancel()
	act, err := acts[args[0]].prepare(ctx, p)
	if err != nil {
		return err
	}
	sweep.Begin()
	return act()
}

// act is a thing that is swept.
type act struct {
	kind    string
	before  func(p place) error // in the test, before each run
	prepare func(ctx context.Context, p place) (do func() error, err error)
	after   func(p place) error // in the test, after each run; nil for nothing

	// What may be stored after a kill; "" is nothing. If the process came to its
	// end, it is the last of them.
	allowed []string
	keys    int  // at most so many keys are left
	wrong   bool // a control
}

func savesOld(p place) error { return p.save([]byte(oldData)) }

func saveNew(ctx context.Context, p place) (func() error, error) {
	c, err := p.cache(ctx, true)
	return func() error { return update(ctx, c) }, err
}

func update(ctx context.Context, c *persistence.Cache) error {
	return c.Update(ctx, func([]byte) ([]byte, error) { return []byte(newData), nil })
}

var acts = map[string]act{
	"save":           {kind: opened, before: savesOld, prepare: saveNew, allowed: []string{oldData, newData}, keys: 1},
	"save plaintext": {kind: openedPlain, before: savesOld, prepare: saveNew, allowed: []string{oldData, newData}},
	"first save": {kind: opened, before: func(place) error { return nil }, allowed: []string{"", newData}, keys: 1,
		prepare: func(ctx context.Context, p place) (func() error, error) {
			return func() error {
				c, err := p.cache(ctx, true)
				if err != nil {
					return err
				}
				return update(ctx, c)
			}, nil
		}},
	"delete": {kind: opened, before: savesOld, allowed: []string{oldData, ""}, keys: 1,
		prepare: func(ctx context.Context, p place) (func() error, error) {
			c, err := p.cache(ctx, true)
			return func() error { return c.Delete(ctx) }, err
		}},
	// Three keys: the file's, the one before, and one that was made for it, or
	// not deleted yet.
	"rotate": {kind: encryptedFile, before: rotatedOld, allowed: []string{oldData}, keys: 3,
		prepare: func(ctx context.Context, p place) (func() error, error) {
			f, err := p.encrypted()
			return func() error { return f.Rotate(ctx, keyring.NewKeys(p.keyring(), cacheName)) }, err
		}},
	"move": {kind: opened, before: plaintextOld, allowed: []string{oldData}, keys: 1,
		prepare: func(ctx context.Context, p place) (func() error, error) {
			return func() error { _, err := p.cache(ctx, true); return err }, nil
		}},

	"move by itself": {kind: encryptedFile, before: elsewhereOld, after: moveHere, allowed: []string{oldData}, keys: 1,
		prepare: func(_ context.Context, p place) (func() error, error) {
			return func() error { return moveHere(p) }, nil
		}},

	"save in place": {kind: openedPlain, before: savesOld, allowed: []string{oldData, newData}, wrong: true,
		prepare: func(_ context.Context, p place) (func() error, error) {
			return func() error { return os.WriteFile(p.path()+".plaintext.json", []byte(newData), 0o600) }, nil
		}},
	"rotate, the old key first": {kind: encryptedFile, before: rotatedOld, allowed: []string{oldData}, keys: 3, wrong: true,
		prepare: func(ctx context.Context, p place) (func() error, error) {
			f, err := p.encrypted()
			if err != nil {
				return nil, err
			}
			data, err := f.Load(ctx)
			return func() error {
				if err := removeKeys(p); err != nil {
					return err
				}
				if err := os.Remove(p.path() + ".enc"); err != nil {
					return err
				}
				return f.Save(ctx, data)
			}, err
		}},
	"move by itself, away first": {kind: encryptedFile, before: elsewhereOld, after: moveHere, allowed: []string{oldData}, keys: 1, wrong: true,
		prepare: func(ctx context.Context, p place) (func() error, error) {
			from := place{plaintextFile, p.dir, p.keys}
			data, err := from.load()
			return func() error {
				f, err := from.store()
				if err != nil {
					return err
				}
				if err := f.Delete(ctx); err != nil {
					return err
				}
				return p.save(data)
			}, err
		}},
	"move, away first": {kind: opened, before: plaintextOld, allowed: []string{oldData}, keys: 1, wrong: true,
		prepare: func(_ context.Context, p place) (func() error, error) {
			return func() error {
				if err := os.Remove(p.path() + ".plaintext.json"); err != nil {
					return err
				}
				return p.save([]byte(oldData))
			}, nil
		}},
}

func rotatedOld(p place) error {
	if err := p.save([]byte(oldData)); err != nil {
		return err
	}
	f, err := p.encrypted()
	if err != nil {
		return err
	}
	return f.Rotate(context.Background(), keyring.NewKeys(p.keyring(), cacheName))
}

// plaintextOld leaves what a program did that found no keyring.
func plaintextOld(p place) error {
	p.kind = openedPlain
	return p.save([]byte(oldData))
}

// elsewhereOld stores something in a plaintext file of its own.
func elsewhereOld(p place) error {
	p.kind = plaintextFile
	return p.save([]byte(oldData))
}

// moveHere moves that to the place itself.
func moveHere(p place) error {
	ctx, cancel := patient()
	defer cancel()
	from, err := place{plaintextFile, p.dir, p.keys}.store()
	if err != nil {
		return err
	}
	to, err := p.store()
	if err != nil {
		return err
	}
	return persistence.Move(ctx, from, to)
}

func removeKeys(p place) error {
	if err := os.RemoveAll(p.keys); err != nil {
		return err
	}
	return os.Mkdir(p.keys, 0o700)
}

// sweepAct kills the act before each of its system calls, and returns what was
// wrong then.
func sweepAct(t *testing.T, name string) (bad []string, kills int) {
	a := acts[name]
	calls := sweep.FileCalls
	if !long { // those that change something
		calls = []string{"write", "pwrite64", "fsync", "renameat", "renameat2", "unlinkat"}
	}
	exe, err := executable()
	require.NoError(t, err)
	p := newPlace(t, a.kind)
	command := func() []string {
		require.NoError(t, os.RemoveAll(p.dir))
		require.NoError(t, removeKeys(p))
		require.NoError(t, a.before(p))
		return append([]string{"-E", programVariable + "=sweep", exe}, p.args(name)...)
	}
	kills = sweep.Each(t, calls, sweep.Kill, command, func(r sweep.Run) {
		if err := a.check(t, p, r.OK); err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", r, err))
		}
	})
	return bad, kills
}

// check finds out whether what the act has left is right, and whether the place
// is as good as new.
func (a act) check(t *testing.T, p place, done bool) error {
	if temps := temporary(dirFiles(t, p.dir)); len(temps) > 1 {
		return fmt.Errorf("temporary files: %v", temps)
	}
	if n := p.keyCount(t); n > a.keys {
		return fmt.Errorf("%d keys", n)
	}
	if a.after != nil {
		if err := a.after(p); err != nil {
			return err
		}
	}
	data, err := p.load()
	if err != nil {
		return err
	}
	if i := slices.Index(a.allowed, string(data)); i < 0 || done && i != len(a.allowed)-1 {
		return fmt.Errorf("done: %v, and stored is %q", done, data)
	}
	if err := p.save([]byte(newData)); err != nil {
		return err
	}
	if data, err = p.load(); err != nil || string(data) != newData {
		return fmt.Errorf("after one more save stored is %q: %w", data, err)
	}
	if files := dirFiles(t, p.dir); len(files) != 1 {
		return fmt.Errorf("after one more save there are %v", files)
	}
	if err := a.deleteAll(p); err != nil {
		return err
	}
	if n := p.keyCount(t); n > 0 {
		return fmt.Errorf("%d keys are left of nothing", n)
	}
	return nil
}

func (a act) deleteAll(p place) error {
	ctx, cancel := patient()
	defer cancel()
	if p.kind == encryptedFile {
		// A rotation takes up the key that one before it had made in vain.
		f, err := p.encrypted()
		if err != nil {
			return err
		}
		if err := f.Rotate(ctx, keyring.NewKeys(p.keyring(), cacheName)); err != nil {
			return err
		}
	}
	c, err := p.cache(ctx, true)
	if err != nil {
		return err
	}
	return c.Delete(ctx)
}

// A process is killed before each system call of a save, a rotation, a move
// from the plaintext file to the encrypted one, and more. What it had is never
// lost; what it has left over is dealt with.
func TestKillAtEveryCall(t *testing.T) {
	for name, a := range acts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad, kills := sweepAct(t, name)
			if a.wrong {
				require.NotEmpty(t, bad, "the control was not caught: this test proves nothing")
				return
			}
			require.Empty(t, bad)
			t.Logf("%d kills", kills)
			require.GreaterOrEqual(t, kills, 3)
		})
	}
}
