package proof

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func init() { programs["read"] = readProgram }

// raw is an in-memory cache that takes anything.
type raw struct{ data []byte }

func (r *raw) Unmarshal(data []byte) error { r.data = data; return nil }

// readProgram reads n times, by Load and by Replace in turn, with a cache that
// is opened anew every so many times, or never again if that is 0, and reports
// what it should not have seen.
func readProgram(args []string) error {
	p, args := placeOf(args)
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	again, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	ctx, cancel := patient()
	defer cancel()
	c, err := p.cache(ctx, true)
	if err != nil {
		return err
	}
	ready()
	u := &raw{}
	var last uint64
	for i := range n {
		if again > 0 && i%again == 0 {
			if c, err = p.cache(ctx, true); err != nil {
				report("open:", err)
				return nil
			}
			u = &raw{}
		}
		data := u.data
		if i%2 == 0 {
			data, err = c.Load(ctx)
		} else if err = c.Replace(ctx, u, cache.ReplaceHints{}); err == nil {
			data = u.data
		}
		if err != nil {
			report("read:", err)
			return nil
		}
		number, err := numberOf(p.kind, data)
		switch {
		case err != nil:
			report("malformed:", err)
			return nil
		case number < last:
			report("older:", number, "after", last)
			return nil
		}
		last = number
	}
	return nil
}

// readWhile runs readers while a process saves, and returns what they should
// not have seen.
func readWhile(t *testing.T, p place, program string, n int, args ...any) (bad []string) {
	const readers = 3
	require.NoError(t, p.save(numbered(p.kind, 1)))
	writer := start(t, program, p.args(args...)...)
	for line := ""; line != "saved 2"; {
		var ok bool
		if line, ok = writer.line(); !ok {
			writer.wait()
		}
	}
	reported := make(chan saves)
	go func() {
		var s saves
		for {
			line, ok := writer.line()
			if !ok {
				reported <- s
				return
			}
			s.add(line)
		}
	}()
	for _, lines := range all(t, readers, "read", func(int) []string { return p.args(n, 10) }) {
		bad = append(bad, lines...)
	}
	writer.cmd.Process.Kill()
	s := <-reported
	writer.afterKill()
	t.Logf("%d reads during %d saves", readers*n, s.completed)
	return bad
}

// Processes read while another one saves in a loop, and gives the file new
// keys: every read is of something that was saved, and never older than the
// one before.
func TestReaders(t *testing.T) {
	reads := times(60, 800)
	for _, kind := range backends {
		t.Run(kind, func(t *testing.T) {
			require.Empty(t, readWhile(t, newPlace(t, kind), "save", reads))
		})
	}
	t.Run("rotation", func(t *testing.T) {
		require.Empty(t, readWhile(t, newPlace(t, encryptedFile), "save", reads, "rotate"))
	})
	t.Run("control", func(t *testing.T) {
		for range 50 {
			if bad := readWhile(t, newPlace(t, plaintextFile), "save in place", 100); len(bad) > 0 {
				t.Log(bad)
				return
			}
		}
		t.Fatal("a writer in place was never caught: this test proves nothing")
	})
}

// Readers read, and open the cache, while somebody holds the lock. Only Open
// without a keyring may wait for it: it tries to make a key in the keyring.
func TestReadersNeedNoLock(t *testing.T) {
	for _, kind := range backends {
		t.Run(kind, func(t *testing.T) {
			p := newPlace(t, kind)
			require.NoError(t, p.save(numbered(kind, 1)))
			again := 5
			var lock persistence.Locker = persistence.NewFileLock(p.path() + ".lock")
			switch kind {
			case openedPlain:
				again = 0
			case encryptedFile, plaintextFile, keyringItem:
				var err error
				lock, err = p.store()
				require.NoError(t, err)
			}
			writer, err := p.cache(t.Context(), true)
			require.NoError(t, err)
			reader := start(t, "read", p.args(20, again)...)
			reader.expect("ready")
			unlock, err := lock.Lock(t.Context())
			require.NoError(t, err)
			reader.begin()
			require.Empty(t, reader.lines())
			reader.wait()

			// The control: this is the lock that a writer needs.
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			err = writer.Update(ctx, func([]byte) ([]byte, error) { return []byte("{}"), nil })
			require.ErrorIs(t, err, persistence.ErrLockTimeout)
			require.NoError(t, unlock())
		})
	}
}
