package encrypted

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func note(t testing.TB, f *File) string {
	t.Helper()
	return strings.Join(f.ledger().Keys(f.store.Path()), " ")
}

func mustLoad(t testing.TB, f *File, want string) {
	t.Helper()
	data, err := f.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, want, string(data))
}

func TestOneKeyringCallServesAProcess(t *testing.T) {
	r, path := newRing(), tempPath(t)
	require.NoError(t, newFile(t, path, r).Save(ctx, []byte("one")))
	r.takeCalls()

	f := newFile(t, path, r) // as a new process
	require.NoError(t, f.Check(ctx))
	require.NoError(t, f.Check(ctx))
	mustLoad(t, f, "one")
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			_, err := f.Load(ctx)
			require.NoError(t, err)
			require.NoError(t, f.Save(ctx, []byte("two")))
		})
	}
	group.Wait()
	require.Equal(t, []string{"key " + refID(headerOf(t, path).ref)}, r.takeCalls())
}

func TestTheKeyIsAskedForOnceByConcurrentCalls(t *testing.T) {
	r, path := newRing(), tempPath(t)
	require.NoError(t, newFile(t, path, r).Save(ctx, []byte("one")))
	r.takeCalls()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r.before = func(string) error { <-release; return nil }
		f := newFile(t, path, r)
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				_, err := f.Load(ctx)
				require.NoError(t, err)
			})
		}
		synctest.Wait() // one is asking, the others wait for it
		close(release)
		group.Wait()
	})
	require.Len(t, r.takeCalls(), 1)
}

// A file that is cut short is refused before anybody is asked for a key.
func TestNobodyIsAskedForTheKeyOfADamagedFile(t *testing.T) {
	r, path := newRing(), tempPath(t)
	require.NoError(t, newFile(t, path, r).Save(ctx, []byte("one")))
	file := readFile(t, path)
	r.before = func(call string) error { t.Error(call); return nil }
	for n := range len(file) - len("one") {
		_, _, err := (*fileCodec)(newFile(t, path, r)).Decode(ctx, bytes.Clone(file[:n]))
		require.Equal(t, "corrupt", classOf(err), "cut to %d", n)
	}
}

func TestCheckMakesTheKeyThatTheFirstSaveUses(t *testing.T) {
	r, path := newRing(), tempPath(t)
	require.NoError(t, newFile(t, path, r).Check(ctx))
	require.NoFileExists(t, path)
	ids := r.ids()
	require.Len(t, ids, 1)
	require.Contains(t, note(t, newFile(t, path, r)), "keyring/"+ids[0])

	f := newFile(t, path, r)
	require.NoError(t, f.Check(ctx))
	require.NoError(t, f.Save(ctx, []byte("one")))
	require.Equal(t, ids, r.ids(), "no scratch items, no second key")
	require.Equal(t, ids[0], headerOf(t, path).ref)
	require.Empty(t, note(t, f), "a key that a header names is no stray")
	mustLoad(t, newFile(t, path, r), "one")
}

func TestCheckFailsWhereAKeyCannotBeKept(t *testing.T) {
	path := tempPath(t)
	requireError(t, "unavailable", newFile(t, path, Env("TOKENKEEP_TEST_UNSET")).Check(ctx))
	requireError(t, "unavailable", newFile(t, path, forgetful{newRing(), false}).Check(ctx))
	requireError(t, "unavailable", newFile(t, path, forgetful{newRing(), true}).Check(ctx))
	r := newRing()
	r.before = func(string) error { return remedy.Errorf("Unlock it.", "%w", persistence.ErrKeyringLocked) }
	requireError(t, "locked", newFile(t, path, r).Check(ctx))
	requireError(t, "locked", newFile(t, path, r).Save(ctx, []byte("x")))
	require.NoFileExists(t, path)
}

// forgetful stores something else than the key that it made, or nothing.
type forgetful struct {
	*ring
	all bool
}

func (f forgetful) Key(context.Context, string) ([]byte, error) {
	if f.all {
		return nil, remedy.Errorf("Sign in again.", "%w", persistence.ErrKeyMissing)
	}
	return randomKey(), nil
}

func TestStoredSource(t *testing.T) {
	path := tempPath(t)
	_, err := StoredSource(ctx, path)
	require.Equal(t, "not-found", classOf(err))
	require.NoError(t, newFile(t, path, newRing()).Save(ctx, nil))
	source, err := StoredSource(ctx, path)
	require.NoError(t, err)
	require.Equal(t, "keyring", source)
	for class, content := range map[string]string{"corrupt": "", "unsupported-version": versionPrefix + "2\n"} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err = StoredSource(ctx, path)
		requireError(t, class, err)
	}
	_, err = StoredSource(ctx, t.TempDir())
	require.Equal(t, "none", classOf(err))
}

func TestAPassphraseIsAskedForOnce(t *testing.T) {
	path, asked := tempPath(t), 0
	ask := func(context.Context) ([]byte, error) { asked++; return []byte("open sesame"), nil }
	source := Passphrase(ask, &PassphraseOptions{Cost: Cost{Memory: 32, Passes: 1, Lanes: 1}})
	f := newFile(t, path, source)
	require.NoError(t, f.Check(ctx))
	require.NoError(t, f.Save(ctx, []byte("one")))
	require.NoError(t, f.Save(ctx, []byte("two")))
	mustLoad(t, f, "two")
	require.NoError(t, f.Delete(ctx))
	require.NoError(t, f.Save(ctx, []byte("three")))
	require.Equal(t, 1, asked)
	mustLoad(t, newFile(t, path, source), "three")
	require.Equal(t, 2, asked)
}

// A mistyped passphrase is not remembered: the next answer counts.
func TestAMistypedPassphraseIsAskedForAgain(t *testing.T) {
	path := tempPath(t)
	require.NoError(t, newFile(t, path, cheap("right")).Save(ctx, []byte("one")))
	before := readFile(t, path)
	answers := []string{"wrong", "wrong too", "", "right"}
	f := newFile(t, path, Passphrase(func(context.Context) ([]byte, error) {
		a := answers[0]
		answers = answers[1:]
		return []byte(a), nil
	}, nil)) // the file has its own cost
	_, err := f.Load(ctx)
	requireError(t, "wrong-key", err)
	requireError(t, "wrong-key", f.Save(ctx, []byte("two")))
	requireError(t, "wrong-key", f.Check(ctx))
	require.Equal(t, before, readFile(t, path))
	mustLoad(t, f, "one")
}

func TestAFileThatCannotBeOpenedIsNotOverwritten(t *testing.T) {
	r := newRing()
	write := func(path string, s KeySource) { require.NoError(t, newFile(t, path, s).Save(ctx, []byte("one"))) }
	for name, c := range map[string]struct {
		class  string
		make   func(path string)
		source KeySource
	}{
		"another source":     {"wrong-key", func(p string) { write(p, r) }, cheap("x")},
		"an unknown source":  {"wrong-key", func(p string) { write(p, fixed{"x-vault", randomKey()}) }, r},
		"another passphrase": {"wrong-key", func(p string) { write(p, cheap("y")) }, cheap("x")},
		"another raw key":    {"wrong-key", func(p string) { write(p, Raw(randomKey())) }, Raw(randomKey())},
		"another keyring":    {"key-missing", func(p string) { write(p, newRing()) }, r},
		"another name": {"wrong-key", func(p string) {
			f, err := New(p, r, &Options{Name: "fabrikam-cli"})
			require.NoError(t, err)
			require.NoError(t, f.Save(ctx, []byte("one")))
		}, r},
		"a plaintext cache": {"corrupt", func(p string) { require.NoError(t, os.WriteFile(p, []byte(`{"Account":{}}`), 0o600)) }, r},
		"an empty file":     {"corrupt", func(p string) { require.NoError(t, os.WriteFile(p, nil, 0o600)) }, r},
		"a later version":   {"unsupported-version", func(p string) { require.NoError(t, os.WriteFile(p, []byte(versionPrefix+"2\n"), 0o600)) }, r},
	} {
		t.Run(name, func(t *testing.T) {
			path := tempPath(t)
			c.make(path)
			before := readFile(t, path)
			f := newFile(t, path, c.source)
			_, rev, err := f.LoadRevision(ctx)
			requireError(t, c.class, err)
			require.NotEmpty(t, rev)
			again, err := f.Revision(ctx)
			require.NoError(t, err)
			require.Equal(t, rev, again)
			requireError(t, c.class, f.Save(ctx, []byte("two")))
			_, err = f.SaveIf(ctx, []byte("two"), rev)
			requireError(t, c.class, err)
			requireError(t, c.class, f.Check(ctx))
			requireError(t, c.class, f.Rotate(ctx, Raw(randomKey())))
			require.Equal(t, before, readFile(t, path))

			aside, err := f.SetAside(ctx, rev)
			require.NoError(t, err)
			require.Equal(t, before, readFile(t, aside))
			require.NoError(t, f.Save(ctx, []byte("two")))
			mustLoad(t, f, "two")
		})
	}
}

// The key of a file that was set aside is not made anew under its id: if the
// old key comes back, so does the file.
func TestASetAsideFileKeepsItsKeyID(t *testing.T) {
	r, path := newRing(), tempPath(t)
	f := newFile(t, path, r)
	require.NoError(t, f.Check(ctx)) // notes the id
	parts, _, err := (*fileCodec)(f).Encode(ctx, []byte("one"), nil)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, parts[0], 0o600)) // killed before it could clear the note
	id := headerOf(t, path).ref
	require.Contains(t, note(t, f), id)
	key := r.keys[id]
	r.keys = map[string][]byte{}

	f = newFile(t, path, r)
	_, rev, err := f.LoadRevision(ctx)
	requireError(t, "key-missing", err)
	aside, err := f.SetAside(ctx, rev)
	require.NoError(t, err)
	require.NoError(t, f.Save(ctx, []byte("two")))
	require.NotEqual(t, id, headerOf(t, path).ref)

	r.keys[id] = key
	mustLoad(t, newFile(t, aside, r), "one")
}

// A file that was set aside is removed with its keys once there are enough newer
// ones, but for keys that another file needs.
func TestSetAsideFilesAndTheirKeysAreBounded(t *testing.T) {
	r, path := newRing(), tempPath(t)
	f := newFile(t, path, r)
	harm := func() {
		b := readFile(t, path)
		b[len(b)-1] ^= 1
		require.NoError(t, os.WriteFile(path, b, 0o600))
	}
	setAside := func() string {
		_, rev, err := f.LoadRevision(ctx)
		requireError(t, "corrupt", err)
		aside, err := f.SetAside(ctx, rev)
		require.NoError(t, err)
		return aside
	}
	require.NoError(t, f.Save(ctx, []byte("data")))
	require.NoError(t, f.Rotate(ctx, r)) // two keys
	harm()
	first := setAside()
	require.Len(t, r.ids(), 2)
	for n := range 10 {
		require.NoError(t, f.Save(ctx, []byte("data")))
		harm()
		if n == 3 {
			require.Len(t, r.ids(), 6, "what is kept has its keys")
			require.FileExists(t, first)
		}
		setAside()
		files, err := filepath.Glob(path + ".damaged-*")
		require.NoError(t, err)
		require.Len(t, r.ids(), len(files)+map[bool]int{true: 1}[n < 4])
		require.LessOrEqual(t, len(files), 5)
		require.Empty(t, note(t, f))
	}
	require.NoFileExists(t, first)

	// One of them was mended, and put back as a copy.
	files, err := filepath.Glob(path + ".damaged-*")
	require.NoError(t, err)
	mended := readFile(t, files[0])
	mended[len(mended)-1] ^= 1
	require.NoError(t, os.WriteFile(path, mended, 0o600))
	mustLoad(t, f, "data")
	id := headerOf(t, path).ref
	for range 5 {
		harm()
		setAside()
		require.NoError(t, os.WriteFile(path, mended, 0o600))
	}
	mustLoad(t, newFile(t, path, r), "data")
	require.Equal(t, []string{id}, r.ids(), "those of the others are gone")

	// A locked keyring keeps its key for now, and the next sweep deletes it.
	files, err = filepath.Glob(path + ".damaged-*")
	require.NoError(t, err)
	for _, aside := range files {
		require.NoError(t, os.Remove(aside))
	}
	require.NoError(t, f.Delete(ctx))
	require.Empty(t, r.ids())
	r.before = func(call string) error {
		if call == "delete" {
			return persistence.ErrKeyringLocked
		}
		return nil
	}
	for range 7 {
		require.NoError(t, f.Save(ctx, []byte("data")))
		harm()
		setAside()
	}
	require.NotEmpty(t, note(t, f))
	r.before = nil
	require.NoError(t, f.Save(ctx, []byte("data")))
	require.NoError(t, f.Delete(ctx))
	require.Empty(t, note(t, f))
	require.Len(t, r.ids(), 5)
}

func TestRotateKeepsThePreviousKeyOnce(t *testing.T) {
	r, path := newRing(), tempPath(t)
	f := newFile(t, path, r)
	require.NoError(t, f.Save(ctx, []byte("one")))
	backup := filepath.Join(t.TempDir(), "cache")
	require.NoError(t, os.WriteFile(backup, readFile(t, path), 0o600))
	first := headerOf(t, path)
	other := newFile(t, path, r) // a process that has the first key in memory
	mustLoad(t, other, "one")

	require.NoError(t, f.Rotate(ctx, r))
	second := headerOf(t, path)
	require.NotEqual(t, first.ref, second.ref)
	require.Equal(t, "keyring/"+first.ref, second.file.previous)
	require.ElementsMatch(t, []string{first.ref, second.ref}, r.ids())
	require.Empty(t, note(t, f))
	mustLoad(t, f, "one")
	mustLoad(t, newFile(t, backup, r), "one")
	mustLoad(t, other, "one")
	require.NoError(t, other.Save(ctx, []byte("two")))
	require.Equal(t, second.file.previous, headerOf(t, path).file.previous, "a save keeps the line as it is")

	require.NoError(t, f.Rotate(ctx, r))
	third := headerOf(t, path)
	require.ElementsMatch(t, []string{second.ref, third.ref}, r.ids())
	mustLoad(t, other, "two")
	_, err := newFile(t, backup, r).Load(ctx)
	requireError(t, "key-missing", err)

	require.NoError(t, f.Delete(ctx))
	require.Empty(t, r.ids(), "deleting the file deletes its keys")
	require.Empty(t, note(t, f))
}

func TestRotateToAnotherSource(t *testing.T) {
	r, path := newRing(), tempPath(t)
	old := newFile(t, path, r)
	require.NoError(t, old.Save(ctx, []byte("one")))
	first := headerOf(t, path).keyName()
	f := newFile(t, path, r)
	require.NoError(t, f.Rotate(ctx, cheap("one")))
	require.Equal(t, "passphrase", persistence.Describe(f).KeySource)
	require.Equal(t, first, headerOf(t, path).file.previous)
	mustLoad(t, f, "one")
	_, err := old.Load(ctx)
	requireError(t, "wrong-key", err)
	requireError(t, "wrong-key", old.Save(ctx, []byte("old")))

	require.NoError(t, f.Rotate(ctx, cheap("two")), "a change of the passphrase")
	_, err = newFile(t, path, cheap("one")).Load(ctx)
	requireError(t, "wrong-key", err)
	mustLoad(t, newFile(t, path, cheap("two")), "one")
	require.Contains(t, note(t, f), first, "no source at hand can delete it")

	require.NoError(t, f.Rotate(ctx, r))
	require.NotEqual(t, first, headerOf(t, path).keyName())
	require.Len(t, r.ids(), 1, "a key that was left over is deleted")
	mustLoad(t, f, "one")
}

// A key that was given up may be why the file is rotated. That it could not be
// deleted yet does not bring it back.
func TestRotateNeverGoesBackToAnOldKey(t *testing.T) {
	r, path := newRing(), tempPath(t)
	f := newFile(t, path, r)
	require.NoError(t, f.Save(ctx, []byte("one")))
	used := []string{headerOf(t, path).ref}
	for i := range 8 {
		r.before = func(call string) error {
			if call == "delete" && i < 5 {
				return errors.New("not now")
			}
			return nil
		}
		require.NoError(t, f.Rotate(ctx, r))
		require.NotContains(t, used, headerOf(t, path).ref)
		used = append(used, headerOf(t, path).ref)
	}
	require.ElementsMatch(t, used[len(used)-2:], r.ids(), "all others were deleted in the end")
	require.Empty(t, note(t, f))
	mustLoad(t, newFile(t, path, r), "one")
}

func TestRotateRefuses(t *testing.T) {
	key, path := randomKey(), tempPath(t)
	f := newFile(t, path, Raw(key))
	err := f.Rotate(ctx, Raw(randomKey()))
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.NoError(t, f.Save(ctx, []byte("one")))
	before := readFile(t, path)
	require.ErrorContains(t, f.Rotate(ctx, Raw(key)), "already")
	require.Error(t, f.Rotate(ctx, nil))
	require.Error(t, f.Rotate(ctx, Raw(nil)))
	require.Equal(t, before, readFile(t, path))
	mustLoad(t, f, "one")
}

// A rotation that fails at any call of its source leaves a file that opens, and
// nothing in the source once the next one is through.
func TestRotateFailingAtAnyCall(t *testing.T) {
	boom := errors.New("boom")
	for n := 1; ; n++ {
		r, path := newRing(), tempPath(t)
		f := newFile(t, path, r)
		require.NoError(t, f.Save(ctx, []byte("one")))
		require.NoError(t, f.Rotate(ctx, r)) // so that there is a previous key
		calls := 0
		r.before = func(string) error {
			if calls++; calls == n {
				return boom
			}
			return nil
		}
		err := f.Rotate(ctx, r)
		if calls < n {
			require.Greater(t, n, 3)
			return
		}
		if err != nil {
			require.ErrorIs(t, err, boom)
		}
		r.before = nil
		mustLoad(t, newFile(t, path, r), "one")
		f = newFile(t, path, r)
		require.NoError(t, f.Rotate(ctx, r))
		require.Len(t, r.ids(), 2, "failed at call %d", n)
		require.NoError(t, f.Delete(ctx))
		require.Empty(t, r.ids(), "failed at call %d", n)
	}
}

// A file that is replaced, and whose key is deleted, while a reader is between
// the file and the key is read anew.
func TestAReaderInFlightIsNotToldThatItsKeyIsGone(t *testing.T) {
	r, path := newRing(), tempPath(t)
	writer := newFile(t, path, r)
	require.NoError(t, writer.Save(ctx, []byte("one")))
	slow := &hooked{ring: r}
	slow.once = func() {
		require.NoError(t, writer.Delete(ctx))
		require.NoError(t, writer.Save(ctx, []byte("two")))
	}
	mustLoad(t, newFile(t, path, slow), "two")
}

// hooked calls once before its first Key.
type hooked struct {
	*ring
	once func()
}

func (h *hooked) Key(ctx context.Context, ref string) ([]byte, error) {
	if once := h.once; once != nil {
		h.once = nil
		once()
	}
	return h.ring.Key(ctx, ref)
}

func TestDelete(t *testing.T) {
	r, path := newRing(), tempPath(t)
	f := newFile(t, path, r)
	require.NoError(t, f.Delete(ctx))
	require.NoError(t, f.Save(ctx, []byte("one")))
	rev, err := f.Revision(ctx)
	require.NoError(t, err)
	err = f.DeleteIf(ctx, "other")
	require.Equal(t, "conflict", classOf(err))
	mustLoad(t, newFile(t, path, r), "one")
	require.NoError(t, f.DeleteIf(ctx, rev))
	require.NoFileExists(t, path)
	require.Empty(t, r.ids())

	// A keyring that is locked now: the file goes, the key is used or deleted later.
	require.NoError(t, f.Save(ctx, []byte("one")))
	r.before = func(call string) error {
		if call == "delete" {
			return persistence.ErrKeyringLocked
		}
		return nil
	}
	require.NoError(t, f.Delete(ctx))
	require.NoFileExists(t, path)
	ids := r.ids()
	require.Len(t, ids, 1)
	r.before = nil
	require.NoError(t, f.Save(ctx, []byte("two")))
	require.Equal(t, ids, r.ids())
	require.NoError(t, f.Delete(ctx))
	require.Empty(t, r.ids())

	// What is damaged can be deleted too.
	require.NoError(t, os.WriteFile(path, []byte("damaged"), 0o600))
	require.NoError(t, f.Delete(ctx))
	require.NoFileExists(t, path)
}

// Files that share a lock file do not sweep each other's keys.
func TestFilesThatShareALock(t *testing.T) {
	r, dir := newRing(), t.TempDir()
	lock := persistence.NewFileLock(filepath.Join(dir, "lock"))
	open := func(name string) *File {
		f, err := New(filepath.Join(dir, name), r, &Options{Lock: lock})
		require.NoError(t, err)
		return f
	}
	a, b := open("a"), open("b")
	require.NoError(t, a.Check(ctx))
	parts, _, err := (*fileCodec)(a).Encode(ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), parts[0], 0o600)) // its key is still noted
	require.NoError(t, b.Save(ctx, []byte("b")))
	require.NotEqual(t, headerOf(t, filepath.Join(dir, "a")).ref, headerOf(t, filepath.Join(dir, "b")).ref)
	require.NoError(t, b.Rotate(ctx, r))
	require.NoError(t, b.Delete(ctx))
	mustLoad(t, open("a"), "a")
	require.Len(t, r.ids(), 1)
}

func TestBadInputs(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.Mkdir(at("folder"), 0o700))
	require.NoError(t, os.WriteFile(at("a file"), nil, 0o600))

	for name, open := range map[string]func() (*File, error){
		"no source":         func() (*File, error) { return New(at("x"), nil, nil) },
		"a bad source word": func() (*File, error) { return New(at("x"), fixed{"Key Ring", nil}, nil) },
		"a short raw key":   func() (*File, error) { return New(at("x"), Raw(make([]byte, 31)), nil) },
		"no variable":       func() (*File, error) { return New(at("x"), Env(""), nil) },
		"no key file":       func() (*File, error) { return New(at("x"), KeyFile(""), nil) },
		"no command":        func() (*File, error) { return New(at("x"), Command(""), nil) },
		"nothing to ask":    func() (*File, error) { return New(at("x"), Passphrase(nil, nil), nil) },
		"too little work": func() (*File, error) {
			return New(at("x"), Passphrase(func(context.Context) ([]byte, error) { return nil, nil }, &PassphraseOptions{Cost: Cost{Memory: 1 << 10, Lanes: 1}}), nil)
		},
		"a name that is no text": func() (*File, error) { return New(at("x"), newRing(), &Options{Name: "\xff"}) },
		"a long name":            func() (*File, error) { return New(at("x"), newRing(), &Options{Name: strings.Repeat("n", 256)}) },
		"a negative size":        func() (*File, error) { return New(at("x"), newRing(), &Options{MaxSize: -1}) },
		"no path":                func() (*File, error) { return New("", newRing(), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			f, err := open()
			require.Error(t, err)
			require.Nil(t, f)
			var e *persistence.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "open", e.Op)
		})
	}

	// A reader of what is no file of ours, and a folder that cannot be made.
	for _, path := range []string{at("folder"), at("a file/cache")} {
		f, err := New(path, newRing(), nil)
		if err != nil {
			require.Equal(t, at("a file/cache"), path, "%v", err)
			continue
		}
		_, err = f.Load(ctx)
		require.Error(t, err)
		require.Error(t, f.Save(ctx, []byte("x")), path)
		require.Error(t, f.Check(ctx), path)
	}
	require.DirExists(t, at("folder"))

	// What others can read is not trusted.
	f := newFile(t, at("open"), newRing())
	require.NoError(t, f.Save(ctx, []byte("x")))
	require.NoError(t, os.Chmod(at("open"), 0o640))
	if fi, err := os.Stat(at("open")); err == nil && fi.Mode().Perm() == 0o640 {
		_, err := f.Load(ctx)
		require.ErrorIs(t, err, os.ErrPermission)
		require.ErrorIs(t, newFile(t, at("open"), newRing()).Check(ctx), os.ErrPermission)
	}

	// Sizes.
	f, err := New(at("small"), newRing(), &Options{MaxSize: 1000})
	require.NoError(t, err)
	require.NoError(t, f.Save(ctx, []byte("x")))
	require.Equal(t, "too-large", classOf(f.Save(ctx, make([]byte, 1000))))
	mustLoad(t, f, "x")
	require.NoError(t, os.Truncate(at("small"), 1001))
	_, err = f.Load(ctx)
	require.Equal(t, "too-large", classOf(err))
}

func TestDescribe(t *testing.T) {
	path := tempPath(t)
	require.Equal(t, persistence.Description{Backend: "encrypted", Location: path, Encrypted: true, KeySource: "keyring"},
		persistence.Describe(newFile(t, path, newRing())))
}

// While one call asks for the key, another one waits no longer than its context.
func TestWaitingForAnotherCallsQuestion(t *testing.T) {
	r, path := newRing(), tempPath(t)
	require.NoError(t, newFile(t, path, r).Save(ctx, []byte("one")))
	asking, answer := make(chan struct{}), make(chan struct{})
	r.before = func(string) error { close(asking); <-answer; return nil }
	f := newFile(t, path, r)
	done := make(chan error)
	go func() { _, err := f.Load(ctx); done <- err }()
	<-asking
	ended, cancel := context.WithCancel(ctx)
	go cancel()
	_, err := f.Load(ended)
	require.ErrorIs(t, err, context.Canceled)
	close(answer)
	require.NoError(t, <-done)
}

// What others hold in their hands is not changed, and they do not change ours.
func TestBytesAreNotShared(t *testing.T) {
	key := randomKey()
	f := newFile(t, tempPath(t), fixed{"keyring", key})
	data := []byte("one")
	require.NoError(t, f.Save(ctx, data))
	require.Equal(t, "one", string(data))
	copy(key, make([]byte, 32)) // the caller's
	a, err := f.Load(ctx)
	require.NoError(t, err)
	a = append(a, "more"...)
	copy(a, "xxx")
	mustLoad(t, f, "one")
}

// A save writes into the memory of the one before it. Whoever saves at the same
// time, and gives up when, each file that is ever seen is whole, and is what one save
// was given.
func TestNoSaveWritesIntoAnothers(t *testing.T) {
	key, path := randomKey(), tempPath(t)
	f, reader := newFile(t, path, Raw(key)), newFile(t, path, Raw(key))
	// All of a length, so that nothing but the bytes tells them apart.
	given := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 100_000) }
	seen := func() int {
		data, err := reader.Load(ctx)
		if !assert.NoError(t, err) || !assert.NotEmpty(t, data) || !assert.True(t, bytes.Equal(data, given(int(data[0])))) {
			return -1
		}
		return int(data[0])
	}
	require.NoError(t, f.Save(ctx, given(0)))

	var savers sync.WaitGroup
	for saver := range 4 {
		savers.Go(func() {
			for n := range 15 {
				ctx, cancel := context.WithCancel(ctx)
				go cancel() // before, during or after the save
				_ = f.Save(ctx, given(saver*15+n))
				cancel()
				seen()
			}
		})
	}
	savers.Wait()

	// The control: of two saves without the lock, the second one writes into the
	// first one's memory before that is on the disk.
	one, _, err := (*fileCodec)(f).Encode(ctx, given(1), readFile(t, path))
	require.NoError(t, err)
	_, _, err = (*fileCodec)(f).Encode(ctx, given(2), readFile(t, path))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, one[0], 0o600))
	require.Equal(t, 2, seen(), "the memory is not used again, so this test shows nothing")
}

// Saves that follow each other allocate no memory for their data. Of a large cache,
// that memory ends with the next garbage collection.
func TestSavesUseTheirMemoryAgain(t *testing.T) {
	const saves = 20
	f := newFile(t, tempPath(t), Raw(randomKey()))
	allocated := func(size int, before func()) int {
		var was, is runtime.MemStats
		data := make([]byte, size)
		runtime.ReadMemStats(&was)
		for range saves {
			before()
			require.NoError(t, f.Save(ctx, data))
		}
		runtime.ReadMemStats(&is)
		return int(is.TotalAlloc-was.TotalAlloc) / saves
	}
	const small, large = maxKept / 2, maxKept + 1
	require.Less(t, allocated(small, func() {}), small/2)
	require.Less(t, allocated(small, runtime.GC), small/2)
	require.Less(t, allocated(large, func() {}), large/2)
	require.GreaterOrEqual(t, allocated(large, runtime.GC), large)                                                // it is not kept
	require.GreaterOrEqual(t, allocated(small, func() { f.sealed, f.kept = weak.Pointer[sealed]{}, nil }), small) // the control

	require.NoError(t, f.Save(ctx, make([]byte, large)))
	runtime.GC()
	require.Nil(t, f.sealed.Value())
	require.Nil(t, f.kept)
}

// No error, and no value that is printed by mistake, shows a secret.
func TestNoSecretIsPrinted(t *testing.T) {
	const secret = "PLANTED-SECRET"
	key := bytes.Repeat([]byte{0xA7}, 32)
	secrets := []string{secret, string(key), encode(key), strings.Repeat("a7", 8), "167 167", "0xa7, 0xa7"}
	var printed []string
	show := func(v any) {
		printed = append(printed, fmt.Sprintf("%v %+v %#v %s %q %x %X %d %t %e", v, v, v, v, v, v, v, v, v, v))
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "value", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "value", v)
		printed = append(printed, log.String())
	}
	do := func(f *File) {
		if _, isFixed := f.source.(fixed); !isFixed { // which shows its key
			defer func() { show(f) }()
		}
		_, err := f.Load(ctx)
		show(err)
		show(f.Check(ctx))
		show(f.Save(ctx, []byte(secret)))
		_, err = f.Load(ctx)
		show(err)
		show(f.Rotate(ctx, Raw(key)))
		show(f.Delete(ctx))
	}
	t.Setenv("TOKENKEEP_TEST_KEY", secret)
	keyFile := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(keyFile, []byte(secret), 0o600))
	plain := tempPath(t)
	sources := []KeySource{
		Raw(key), Env("TOKENKEEP_TEST_KEY"), KeyFile(keyFile), fixed{"keyring", []byte(secret)},
		Command("/bin/sh", "-c", "echo "+secret+"; echo "+secret+" >&2; exit 3"), Command("/bin/sh", "-c", "echo "+secret),
		Passphrase(func(context.Context) ([]byte, error) { return []byte(secret), nil }, &PassphraseOptions{Cost: Cost{Memory: 32, Passes: 1, Lanes: 1}}),
		newRing(),
	}
	for _, s := range sources {
		if _, isFixed := s.(fixed); !isFixed {
			show(s)
		}
		path := tempPath(t)
		do(newFile(t, path, s))
		require.NoError(t, os.WriteFile(plain, []byte(`{"secret":"`+secret+`"}`), 0o600))
		do(newFile(t, plain, s))
		require.NoError(t, newFile(t, path, newRing()).Save(ctx, []byte(secret)))
		do(newFile(t, path, s))
	}
	all := strings.Join(printed, "\n")
	for _, s := range []string{"environment variable TOKENKEEP_TEST_KEY", "the command /bin/sh", "does not start with"} {
		require.True(t, strings.Contains(all, s), "control: the errors are there: %q", s)
	}
	for _, s := range secrets {
		i := strings.Index(all, s)
		if i >= 0 {
			t.Errorf("%q is in: %s", s, all[max(0, i-500):min(len(all), i+100)])
		}
	}
}

// Whatever the verb, a File and a source are their descriptions.
func TestFormattedAsADescription(t *testing.T) {
	path := tempPath(t)
	f := newFile(t, path, Raw(randomKey()))
	for v, want := range map[any]string{
		f:                 "encrypted file " + path + " (key from raw)",
		Raw(randomKey()):  "a key that the program gave",
		Env("NAME"):       "a key from the environment variable NAME",
		cheap("password"): "a key from a passphrase",
		DPAPI():           "a key protected by DPAPI",
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%t", "%e", "%c", "%U"} {
			require.Equal(t, want, fmt.Sprintf(verb, v), verb)
		}
		var log strings.Builder
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "value", v)
		quoted, err := json.Marshal(want)
		require.NoError(t, err)
		require.Contains(t, log.String(), `"value":`+string(quoted))
	}
	var none *File
	require.Equal(t, "encrypted file", fmt.Sprint(none))
}
