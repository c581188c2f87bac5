package securefile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

const limit = 1 << 20

// entries returns the names in dir.
func entries(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestReplaceThenRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "cache")
	for _, parts := range [][][]byte{
		{[]byte("one")},
		{[]byte("two, "), nil, []byte("in parts")},
		{},
		{bytes.Repeat([]byte("x"), 300_000)},
		{[]byte("short again")},
	} {
		stamp, err := securefile.Replace(t.Context(), path, parts...)
		require.NoError(t, err)
		data, readStamp, err := securefile.Read(t.Context(), path, limit)
		require.NoError(t, err)
		require.Equal(t, string(bytes.Join(parts, nil)), string(data))
		require.NotNil(t, data)
		require.Equal(t, stamp, readStamp)
		statStamp, err := securefile.Stat(path)
		require.NoError(t, err)
		require.Equal(t, stamp, statStamp)
		require.NotZero(t, stamp)
		require.Equal(t, []string{"cache"}, entries(t, filepath.Dir(path)))
	}
}

func TestReadHead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	_, err := securefile.Replace(t.Context(), path, []byte("0123456789"))
	require.NoError(t, err)
	for n, want := range map[int]string{0: "", 4: "0123", 10: "0123456789", 11: "0123456789", 4096: "0123456789"} {
		head, _, err := securefile.ReadHead(t.Context(), path, n)
		require.NoError(t, err)
		require.Equal(t, want, string(head))
	}
}

func TestNothingThere(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "cache"), filepath.Join(t.TempDir(), "no", "folder", "cache")} {
		_, _, err := securefile.Read(t.Context(), path, limit)
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, _, err = securefile.ReadHead(t.Context(), path, 10)
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = securefile.Stat(path)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NoError(t, securefile.Remove(t.Context(), path))
	}
}

func TestLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	_, err := securefile.Replace(t.Context(), path, make([]byte, 100))
	require.NoError(t, err)
	_, _, err = securefile.Read(t.Context(), path, 100)
	require.NoError(t, err)
	_, _, err = securefile.Read(t.Context(), path, 99)
	require.ErrorIs(t, err, securefile.ErrTooLarge)
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cache")
	_, err := securefile.Replace(t.Context(), path, []byte("x"))
	require.NoError(t, err)
	require.NoError(t, securefile.Remove(t.Context(), path))
	require.Empty(t, entries(t, dir))
	require.NoError(t, securefile.Remove(t.Context(), path))
}

func TestRenameNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, path := range []string{from, to} {
		_, err := securefile.Replace(t.Context(), path, []byte(filepath.Base(path)))
		require.NoError(t, err)
	}
	err := securefile.Rename(t.Context(), from, to)
	require.ErrorIs(t, err, fs.ErrExist)
	var re *securefile.ReplaceError
	require.ErrorAs(t, err, &re)
	require.Equal(t, securefile.Old, re.Stored)
	data, _, err := securefile.Read(t.Context(), to, limit)
	require.NoError(t, err)
	require.Equal(t, "to", string(data))

	require.NoError(t, os.Remove(to))
	require.NoError(t, securefile.Rename(t.Context(), from, to))
	require.Equal(t, []string{"to"}, entries(t, dir))

	require.Error(t, securefile.Rename(t.Context(), to, filepath.Join(t.TempDir(), "to")))
}

// A temporary file of a process that was killed has the name of one, and on
// Windows, where an old age is asked for, an old age.
func leftover(t testing.TB, dir, base, number string) string {
	t.Helper()
	name := "." + base + "." + number + ".tmp"
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte("left over"), 0o600))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(path, old, old))
	return name
}

func TestLeftoversAreRemoved(t *testing.T) {
	for name, do := range map[string]func(ctx context.Context, path string) error{
		"Replace": func(ctx context.Context, path string) error {
			_, err := securefile.Replace(ctx, path, []byte("x"))
			return err
		},
		"Remove": securefile.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, number := range []string{"0", "2", "7", "8", "9"} {
				leftover(t, dir, "cache", number)
			}
			keep := []string{
				leftover(t, dir, "cache.bin", "0"), // of another file
				leftover(t, dir, "cach", "0"),      // of another file
				leftover(t, dir, "cache", "00"),    // not our pattern
				leftover(t, dir, "cache", "x"),     // not our pattern
			}
			folder := ".cache.1.tmp"
			require.NoError(t, os.Mkdir(filepath.Join(dir, folder), 0o700))
			keep = append(keep, folder)
			if name == "Replace" {
				keep = append(keep, "cache")
			}
			require.NoError(t, do(t.Context(), filepath.Join(dir, "cache")))
			require.ElementsMatch(t, keep, entries(t, dir))
		})
	}
}

// Writers that do not share a lock do not take each other's temporary files for
// left-over ones: no Replace fails, and at the end one of them has won.
func TestConcurrentWriters(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cache")
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 20 {
				if _, err := securefile.Replace(t.Context(), path, fmt.Appendf(nil, "writer %d, %d\n", w, i), bytes.Repeat([]byte{'0' + byte(w)}, 10_000)); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				data, _, err := securefile.Read(t.Context(), path, limit)
				if err != nil || whole(data) != nil {
					t.Errorf("writer %d reads: %v, %v", w, err, whole(data))
				}
			}
		})
	}
	writers.Wait()
	require.Equal(t, []string{"cache"}, entries(t, dir))
}

func whole(data []byte) error {
	var w, i int
	if _, err := fmt.Sscanf(string(data), "writer %d, %d\n", &w, &i); err != nil {
		return err
	}
	_, rest, _ := bytes.Cut(data, []byte("\n"))
	if !bytes.Equal(rest, bytes.Repeat([]byte{'0' + byte(w)}, 10_000)) {
		return errors.New("torn")
	}
	return nil
}

func BenchmarkStat(b *testing.B) {
	path := filepath.Join(b.TempDir(), "cache")
	_, err := securefile.Replace(b.Context(), path, []byte("x"))
	require.NoError(b, err)
	b.Run("Stat", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			securefile.Stat(path)
		}
	})
	b.Run("os.Lstat", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			os.Lstat(path)
		}
	})
}

func BenchmarkReplace(b *testing.B) {
	data := make([]byte, 100_000)
	b.Run("Replace", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "cache")
		b.ReportAllocs()
		for b.Loop() {
			if _, err := securefile.Replace(b.Context(), path, data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) { // the same steps without a check
		dir := b.TempDir()
		for b.Loop() {
			f, _ := os.Create(filepath.Join(dir, "tmp"))
			f.Write(data)
			f.Sync()
			f.Close()
			os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "cache"))
			d, _ := os.Open(dir)
			d.Sync()
			if err := d.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
