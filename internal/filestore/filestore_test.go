package filestore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/filestore"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// codec is a format with a head: the word "head:" and a random revision.
type codec struct{ parsed atomic.Int64 }

const (
	headSize = len("head:") + 26 + 1
	secret   = "eyJhbGciOiJub25lIn0"
)

func (c *codec) Revision(head []byte) (string, error) {
	c.parsed.Add(1)
	if len(head) != headSize || !bytes.HasPrefix(head, []byte("head:")) {
		return "", persistence.ErrCorrupt
	}
	return string(head[5 : headSize-1]), nil
}

func (c *codec) Decode(_ context.Context, file []byte) ([]byte, string, error) {
	rev, err := c.Revision(file[:min(len(file), headSize)])
	if err != nil || bytes.HasSuffix(file, []byte("damaged")) {
		return nil, rev, &persistence.Error{Err: persistence.ErrCorrupt, Remedy: "Sign in again."}
	}
	return file[headSize:], rev, nil
}

func (c *codec) Encode(_ context.Context, data, head []byte) ([][]byte, string, error) {
	if head != nil && !bytes.HasPrefix(head, []byte("head:")) {
		return nil, "", errors.New("what is there was not written by this codec")
	}
	rev := rand.Text()
	return [][]byte{[]byte("head:" + rev + "\n"), data}, rev, nil
}

func open(t testing.TB, path string, o filestore.Options) *filestore.Store {
	t.Helper()
	o.Backend, o.HeadSize = "test", headSize
	s, err := filestore.New(path, new(codec), o)
	require.NoError(t, err)
	return s
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "folder", "cache") }

func TestConformance(t *testing.T) {
	const maxSize = 1 << 16
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		path := newPath(t)
		return func() (persistence.Persistence, error) {
			return filestore.New(path, new(codec), filestore.Options{Backend: "test", HeadSize: headSize, MaxSize: maxSize + int64(headSize)})
		}
	}, &persistencetest.Options{MaxSize: maxSize})
}

// clock is a clock that stands still until it is moved.
type clock struct{ now atomic.Int64 }

func (c *clock) read() time.Duration      { return time.Duration(c.now.Load()) }
func (c *clock) advance(by time.Duration) { c.now.Add(int64(by)) }

// When the head is read, and when a stat is enough.
func TestRevisionCosts(t *testing.T) {
	path := newPath(t)
	time := new(clock)
	c := new(codec)
	s, err := filestore.New(path, c, filestore.Options{Backend: "test", HeadSize: headSize, Clock: time.read})
	require.NoError(t, err)
	rev, err := s.SaveIf(t.Context(), []byte("data"), "")
	require.NoError(t, err)
	for i, step := range []struct {
		after    string
		parsings int64
	}{
		{"0s", 1},      // saved just now
		{"1.999s", 1},  // not 2 s yet
		{"1ms", 1},     // 2 s after: read once more
		{"0s", 0},      // from now on a stat is enough
		{"59.999s", 0}, // for a minute
		{"1ms", 1},     // then it is read again
		{"0s", 0},
		{"59s", 0},
		{"1h", 1},
		{"0s", 0},
	} {
		d, err := parse(step.after)
		require.NoError(t, err)
		time.advance(d)
		before := c.parsed.Load()
		got, err := s.Revision(t.Context())
		require.NoError(t, err)
		require.Equal(t, rev, got)
		require.Equal(t, step.parsings, c.parsed.Load()-before, "step %d", i)
	}
	// Another process saves: the stat tells.
	rev, err = open(t, path, filestore.Options{}).SaveIf(t.Context(), []byte("more data"), rev)
	require.NoError(t, err)
	got, err := s.Revision(t.Context())
	require.NoError(t, err)
	require.Equal(t, rev, got)
	require.NoError(t, s.Delete(t.Context()))
	got, err = s.Revision(t.Context())
	require.NoError(t, err)
	require.Empty(t, got)
}

var parse = time.ParseDuration

// A file system with stamps of a whole second, or two, and with one inode for
// every file, whose clock is not ours. No save is missed. The controls trust a
// stamp too early, and must be caught.
func TestCoarseStamps(t *testing.T) {
	missed := func(t *testing.T, granularity, grace time.Duration) (n int) {
		path := newPath(t)
		now := new(clock)
		times := map[securefile.Stamp]securefile.Stamp{}
		offset := time.Duration(mathrand.Int64N(int64(time.Hour)))
		coarse := func(real securefile.Stamp) securefile.Stamp {
			if _, ok := times[real]; !ok { // saved just now
				times[real] = securefile.Stamp{Ino: 1, Size: real.Size, Mtime: int64((now.read() + offset).Truncate(granularity))}
			}
			return times[real]
		}
		reader, writer := open(t, path, filestore.Options{Clock: now.read}), open(t, path, filestore.Options{Clock: now.read})
		for _, s := range []*filestore.Store{reader, writer} {
			s.SetGrace(grace)
			s.SetStamps(coarse)
		}
		rev, err := writer.SaveIf(t.Context(), []byte("data"), "")
		require.NoError(t, err)
		for range 600 {
			now.advance(time.Duration(mathrand.Int64N(int64(700 * time.Millisecond))))
			if mathrand.IntN(4) == 0 {
				rev, err = writer.SaveIf(t.Context(), []byte("data"), rev)
				if errors.Is(err, persistence.ErrConflict) {
					t.Fatal("a conflict with itself")
				}
				require.NoError(t, err)
			}
			got, err := reader.Revision(t.Context())
			require.NoError(t, err)
			if got != rev {
				n++
			}
		}
		return n
	}
	for _, granularity := range []time.Duration{time.Second, 2 * time.Second} {
		require.Zero(t, missed(t, granularity, 2*time.Second), granularity)
		require.NotZero(t, missed(t, granularity, 0), "trusting a stamp at once is never wrong: this test proves nothing")
	}
	for range 10 {
		if missed(t, 2*time.Second, time.Second) > 0 {
			return
		}
	}
	t.Fatal("trusting a stamp after 1 s is never wrong: this test proves nothing")
}

func TestWarmRevisionAllocatesNoMoreThanStat(t *testing.T) {
	path := newPath(t)
	now := new(clock)
	s := open(t, path, filestore.Options{Clock: now.read})
	require.NoError(t, s.Save(t.Context(), []byte("data")))
	now.advance(time.Hour)
	ctx := t.Context()
	_, err := s.Revision(ctx)
	require.NoError(t, err)
	stat := testing.AllocsPerRun(100, func() { securefile.Stat(path) })
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { s.Revision(ctx) }), stat)
}

// A damaged file has a revision, so that it can be set aside if it is still
// that one; it is never taken for nothing.
func TestDamagedFile(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "short": "he", "no head": strings.Repeat("junk", 50), "damaged body": "head:" + strings.Repeat("X", 26) + "\nbody damaged"} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			s := open(t, path, filestore.Options{})
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			_, rev, err := s.LoadRevision(t.Context())
			require.ErrorIs(t, err, persistence.ErrCorrupt)
			complete(t, err, "load", path)
			require.NotEmpty(t, rev)
			require.Equal(t, name != "damaged body", strings.HasPrefix(rev, "bad:"))
			same, err := s.Revision(t.Context())
			require.NoError(t, err)
			require.Equal(t, rev, same)

			_, err = s.SetAside(t.Context(), "another", nil)
			require.ErrorIs(t, err, persistence.ErrConflict)
			var moved []string
			for range 3 { // within a second, so that names meet
				newPath, err := s.SetAside(t.Context(), rev, nil)
				require.NoError(t, err)
				require.Regexp(t, "^"+regexp.QuoteMeta(path)+`\.damaged-\d{8}T\d{6}Z(-\d)?$`, newPath)
				require.NotContains(t, moved, newPath)
				moved = append(moved, newPath)
				kept, err := os.ReadFile(newPath)
				require.NoError(t, err)
				require.Equal(t, content, string(kept))
				_, err = s.Load(t.Context())
				require.ErrorIs(t, err, persistence.ErrNotFound)
				_, err = s.SetAside(t.Context(), rev, nil)
				require.ErrorIs(t, err, persistence.ErrConflict)
				require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			}
		})
	}
}

// Files that were set aside do not pile up: the newest stay, and what is not one
// of them is left alone.
func TestSetAsideIsBounded(t *testing.T) {
	path := newPath(t)
	s := open(t, path, filestore.Options{})
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	put := func(name string) string {
		require.NoError(t, os.WriteFile(path+name, []byte(name), 0o600))
		return path + name
	}
	stay := []string{ // of the others that are like it, and of the user
		put(".damaged-"), put(".damaged-20200101T000000Z.bak"), put(".damaged-20200101T000000Z-x"), put(".damaged-yesterday"), put("2.damaged-20200101T000000Z"),
	}
	require.NoError(t, os.Mkdir(path+".damaged-20200101T000001Z", 0o700)) // cannot be removed
	stay = append(stay, path+".damaged-20200101T000001Z")
	old := []string{put(".damaged-20210101T000000Z"), put(".damaged-20220101T000000Z"), put(".damaged-20220101T000000Z-2")}
	kept := []string{put(".damaged-20220101T000000Z-10"), put(".damaged-20230101T000000Z"), put(".damaged-20240101T000000Z"), put(".damaged-21000101T000000Z")}
	setAside := func(forget func(old []string) error) string {
		put("")
		rev, err := s.Revision(t.Context())
		require.NoError(t, err)
		newPath, err := s.SetAside(t.Context(), rev, forget)
		require.NoError(t, err)
		return newPath
	}
	there := func() []string {
		all, err := filepath.Glob(path + "*.damaged-*")
		require.NoError(t, err)
		return all
	}
	first := setAside(func([]string) error { return errors.New("not now") })
	require.ElementsMatch(t, slices.Concat(stay, old, kept, []string{first}), there())

	second := setAside(func(gone []string) error {
		require.ElementsMatch(t, append(old, stay[5], kept[0]), gone)
		require.FileExists(t, old[0])
		return nil
	})
	require.ElementsMatch(t, slices.Concat(stay, kept[1:], []string{first, second}), there())
	for range 10 {
		last := setAside(nil)
		require.FileExists(t, last)
		require.Len(t, there(), len(stay)+filestore.KeepAside)
	}
}

func TestRewrite(t *testing.T) {
	path := newPath(t)
	s := open(t, path, filestore.Options{})
	encode := func(_ context.Context, data, head []byte) ([][]byte, string, error) {
		require.Equal(t, "data", string(data))
		require.True(t, bytes.HasPrefix(head, []byte("head:")))
		return [][]byte{[]byte("head:" + strings.Repeat("N", 26) + "\n"), data}, strings.Repeat("N", 26), nil
	}
	require.ErrorIs(t, s.Rewrite(t.Context(), encode), persistence.ErrNotFound)
	require.NoError(t, s.Save(t.Context(), []byte("data")))
	require.NoError(t, s.Rewrite(t.Context(), encode))
	data, rev, err := s.LoadRevision(t.Context())
	require.NoError(t, err)
	require.Equal(t, "data", string(data))
	require.Equal(t, strings.Repeat("N", 26), rev)
}

// The writes hold the lock by themselves, and rely on the caller's if it has
// locked the store.
func TestWritesUnderTheLock(t *testing.T) {
	path := newPath(t)
	s, other := open(t, path, filestore.Options{}), open(t, path, filestore.Options{})
	unlock, err := s.Lock(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Save(t.Context(), []byte("data")))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err = other.Save(ctx, []byte("other"))
	require.ErrorIs(t, err, persistence.ErrLockTimeout)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var e *persistence.Error
	require.ErrorAs(t, err, &e)
	complete(t, err, "save", path)
	require.Contains(t, err.Error(), path+".lock")
	require.NotEmpty(t, e.Remedy)
	_, err = other.Lock(ctx)
	complete(t, err, "lock", path)
	_, err = other.LockName(ctx, "name")
	complete(t, err, "lock", path)
	require.Contains(t, e.Error(), strconv.Itoa(os.Getpid()))
	require.NoError(t, unlock())
	require.NoError(t, other.Save(t.Context(), []byte("other")))
}

// An error names operation, backend, location and what to do, once each.
func TestErrors(t *testing.T) {
	path := newPath(t)
	s := open(t, path, filestore.Options{MaxSize: 100})
	err := s.Save(t.Context(), []byte(strings.Repeat(secret, 10)))
	require.ErrorIs(t, err, persistence.ErrTooLarge)
	complete(t, err, "save", path)
	require.NoFileExists(t, path)

	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.ErrorIs(t, err, fs.ErrNotExist)
	complete(t, err, "load", path)

	require.NoError(t, s.Save(t.Context(), []byte(secret)))
	_, err = s.SaveIf(t.Context(), []byte(secret), "another")
	require.ErrorIs(t, err, persistence.ErrConflict)
	complete(t, err, "save", path)
	err = s.DeleteIf(t.Context(), "another")
	require.ErrorIs(t, err, persistence.ErrConflict)
	complete(t, err, "delete", path)

	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat(secret, 10)), 0o600))
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrTooLarge)
	complete(t, err, "load", path)

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	for op, err := range map[string]error{"load": second(s.Load(t.Context())), "revision": second(s.Revision(t.Context())), "save": s.Save(t.Context(), []byte(secret)), "delete": s.Delete(t.Context())} {
		require.ErrorIs(t, err, fs.ErrPermission)
		require.NotErrorIs(t, err, persistence.ErrNotFound)
		complete(t, err, op, path)
		require.Equal(t, 1, strings.Count(err.Error(), path), err.Error())
		var e *persistence.Error
		require.ErrorAs(t, err, &e)
		require.NotEmpty(t, e.Remedy)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Revision(ended)
	require.ErrorIs(t, err, context.Canceled)
	complete(t, err, "revision", path)
}

func second[T any](_ T, err error) error { return err }

func complete(t *testing.T, err error, op, path string) {
	t.Helper()
	e, ok := err.(*persistence.Error)
	require.True(t, ok, "%T", err)
	require.Equal(t, op, e.Op)
	require.Equal(t, "test", e.Backend)
	require.Equal(t, path, e.Location)
	require.NotContains(t, err.Error(), secret)
}

func TestDeleteMakesNothing(t *testing.T) {
	path := newPath(t)
	require.NoError(t, open(t, path, filestore.Options{}).Delete(t.Context()))
	require.NoDirExists(t, filepath.Dir(path))
}

// A codec's error that is an fs.ErrNotExist, of a key file say, does not say
// that nothing is stored.
func TestKeyFileMissing(t *testing.T) {
	path := newPath(t)
	require.NoError(t, open(t, path, filestore.Options{}).Save(t.Context(), []byte("data")))
	s, err := filestore.New(path, keyless{new(codec)}, filestore.Options{Backend: "test", HeadSize: headSize})
	require.NoError(t, err)
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, persistence.ErrNotFound)
}

type keyless struct{ *codec }

func (keyless) Decode(context.Context, []byte) ([]byte, string, error) {
	return nil, "rev", &fs.PathError{Op: "open", Path: "key", Err: fs.ErrNotExist}
}

// Processes count with LoadRevision and SaveIf, without any lock of their own:
// no count is lost. The control saves without the condition, and loses some.
func TestProcessesCount(t *testing.T) {
	const processes, each = 6, 15
	run := func(t *testing.T, mode string) int {
		path := newPath(t)
		exe, err := os.Executable()
		require.NoError(t, err)
		wait, begin, err := os.Pipe() // all begin together, when it is closed
		require.NoError(t, err)
		defer wait.Close()
		var children []*exec.Cmd
		for range processes {
			cmd := exec.Command(exe, path, strconv.Itoa(each))
			cmd.Stdin = wait
			cmd.Env = append(os.Environ(), childMode+"="+mode, "GORACE=atexit_sleep_ms=0")
			cmd.Stderr = os.Stderr
			require.NoError(t, cmd.Start())
			children = append(children, cmd)
		}
		require.NoError(t, begin.Close())
		for _, cmd := range children {
			require.NoError(t, cmd.Wait())
		}
		data, err := open(t, path, filestore.Options{}).Load(t.Context())
		require.NoError(t, err)
		n, err := strconv.Atoi(string(data))
		require.NoError(t, err)
		return n
	}
	require.Equal(t, processes*each, run(t, "count"))
	for range 10 {
		if run(t, "count carelessly") < processes*each {
			return
		}
	}
	t.Fatal("saving without the condition loses nothing: this test proves nothing")
}

const childMode = "TOKENKEEP_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		if err := child(mode, os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(mode, path, times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	s, err := filestore.New(path, new(codec), filestore.Options{Backend: "test", HeadSize: headSize})
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	ctx := context.Background()
	for done := 0; done < n; {
		data, rev, err := s.LoadRevision(ctx)
		if err != nil && !errors.Is(err, persistence.ErrNotFound) {
			return err
		}
		count, _ := strconv.Atoi(string(data))
		next := []byte(strconv.Itoa(count + 1))
		if mode == "count carelessly" {
			err = s.Save(ctx, next)
		} else {
			_, err = s.SaveIf(ctx, next, rev)
		}
		if errors.Is(err, persistence.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		done++
	}
	return nil
}

func BenchmarkRevision(b *testing.B) {
	path := newPath(b)
	now := new(clock)
	s := open(b, path, filestore.Options{Clock: now.read})
	ctx := context.Background()
	require.NoError(b, s.Save(ctx, []byte("data")))
	b.Run("fresh", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Revision(ctx)
		}
	})
	now.advance(time.Minute)
	b.Run("warm", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Revision(ctx)
		}
	})
	b.Run("stat", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			securefile.Stat(path)
		}
	})
}
