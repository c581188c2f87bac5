package persistence_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// logLines is a log, of which only the number of lines and their text count.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// take returns the lines since the last call.
func (l *logLines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSuffix(l.b.String(), "\n")
	l.b.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// TestTheSecondOutageIsLogged like the first, once, with how often it had come
// before without being logged. Where it goes on, it is said again after a while.
func TestTheSecondOutageIsLogged(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var mu sync.Mutex
	counted := 0
	log := new(logLines)
	opts := []persistence.Option{
		persistence.WithLogger(slog.New(slog.NewTextHandler(log, nil))),
		persistence.WithClock(func() time.Time { return now }),
		persistence.WithOnError(func(err error) {
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, errFull) {
				counted++
			}
		}),
	}
	for name, glue := range map[string]func(r *rows) cache.ExportReplace{
		"Partitioned": func(r *rows) cache.ExportReplace { return r.server(t, opts...) },
		"Cache": func(r *rows) cache.ExportReplace {
			store, err := r.open(ctx, "alice")
			require.NoError(t, err)
			return msalCache(t, store, opts...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var f failing
			p := glue(&rows{around: f.around})
			at := 0
			c := new(client)
			refresh := func(n int) []string {
				for range n {
					require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: "alice"}))
					at++
					c.signIn("alice", "rt", at)
					require.NoError(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: "alice"}))
				}
				return log.take()
			}
			counted = 0
			require.Empty(t, refresh(3))
			f.saves.Store(true)
			require.Len(t, refresh(10), 1)
			require.Empty(t, refresh(10), "the control: it is the same outage still")
			require.Equal(t, 20, counted, "but each counts")
			f.saves.Store(false)
			require.Empty(t, refresh(3))
			f.saves.Store(true)
			second := refresh(10)
			require.Len(t, second, 1)
			require.Contains(t, second[0], "unlogged=19")
			now = now.Add(5 * time.Minute)
			again := refresh(10)
			require.Len(t, again, 1)
			require.Contains(t, again[0], "unlogged=9")

			// It comes and goes all the time.
			said := 0
			for range 100 {
				f.saves.Store(false)
				refresh(1)
				f.saves.Store(true)
				said += len(refresh(1))
			}
			require.LessOrEqual(t, said, 5)
			require.NotZero(t, said)
			now = now.Add(time.Minute)
			f.saves.Store(false)
			refresh(1)
			f.saves.Store(true)
			require.Len(t, refresh(10), 1, "and once a minute")
		})
	}
}

// TestOnErrorHearsOfReads: also of those that MSAL is told of.
func TestOnErrorHearsOfReads(t *testing.T) {
	var f failing
	r := &rows{around: f.around}
	var heard []error
	p := r.server(t, silence, persistence.WithOnError(func(err error) { heard = append(heard, err) }))
	f.all.Store(true)
	require.Error(t, p.Replace(context.Background(), new(client), cache.ReplaceHints{PartitionKey: "alice"}))
	require.Len(t, heard, 1)
	require.ErrorIs(t, heard[0], errFull)
}
