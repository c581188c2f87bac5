package tokensource

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

const key = "example alice"

// world is a provider, a store, and programs that share both.
type world struct {
	t      *testing.T
	server *oauthserver.Server
	memory *persistence.Memory
	clock  clock

	around atomic.Pointer[func(op string, call func() error) error] // around each call of the store
	logged syncBuffer
}

func newWorld(t *testing.T, o oauthserver.Options) *world {
	t.Helper()
	server, err := oauthserver.Start(o)
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	return &world{t: t, server: server, memory: persistence.NewMemory()}
}

// cache returns another program's cache on the store.
func (w *world) cache() *persistence.Cache {
	w.t.Helper()
	c, err := persistence.New(persistencetest.Intercept(w.memory, func(_ context.Context, op string, call func() error) error {
		if around := w.around.Load(); around != nil {
			return (*around)(op, call)
		}
		return call()
	}))
	require.NoError(w.t, err)
	return c
}

// onStore has around called around each call of the store, from now on.
func (w *world) onStore(around func(op string, call func() error) error) { w.around.Store(&around) }

// source returns another program's Source.
func (w *world) source(opts ...Option) *Source {
	w.t.Helper()
	return w.sourceOf(w.server.Config(), opts...)
}

func (w *world) sourceOf(conf Refresher, opts ...Option) *Source {
	w.t.Helper()
	opts = append([]Option{WithLogger(slog.New(slog.NewTextHandler(&w.logged, nil)))}, opts...)
	s, err := New(context.Background(), w.cache(), key, conf, opts...)
	require.NoError(w.t, err)
	s.now = w.clock.now
	return s
}

// signedIn stores a new sign-in whose access token is expired.
func (w *world) signedIn() *oauth2.Token {
	w.t.Helper()
	token := w.newSignIn()
	token.Expiry = w.clock.now().Add(-time.Minute)
	require.NoError(w.t, w.source().Save(context.Background(), token))
	return token
}

func (w *world) newSignIn() *oauth2.Token {
	w.t.Helper()
	token, err := w.server.SignIn("alice")
	require.NoError(w.t, err)
	return token
}

// stored returns the stored entry, past all that is around the store.
func (w *world) stored() entry {
	w.t.Helper()
	data, err := w.memory.Load(context.Background())
	if errors.Is(err, persistence.ErrNotFound) {
		return nil
	}
	require.NoError(w.t, err)
	e, err := find(data, key)
	require.NoError(w.t, err)
	return e
}

// advance moves the clock. The provider, which tells lifetimes by the real one,
// issues tokens that have an hour from then on.
func (w *world) advance(d time.Duration) {
	w.clock.advance(d)
	w.server.SetLifetime(time.Duration(w.clock.ahead.Load()) + time.Hour)
}

// clock is moved by tests only ever forward.
type clock struct {
	ahead  atomic.Int64
	frozen atomic.Pointer[time.Time]
}

func (c *clock) now() time.Time {
	now := time.Now()
	if frozen := c.frozen.Load(); frozen != nil {
		now = *frozen
	}
	return now.Add(time.Duration(c.ahead.Load()))
}

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// freeze stops the clock, but for advance, so that no second passes by itself.
func (c *clock) freeze() {
	now := time.Now()
	c.frozen.Store(&now)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// result is what a call of Token came to.
type result struct {
	token *oauth2.Token
	err   error
}

// begin calls f in a goroutine.
func begin(f func() (*oauth2.Token, error)) <-chan result {
	done := make(chan result, 1)
	go func() {
		token, err := f()
		done <- result{token, err}
	}()
	return done
}
