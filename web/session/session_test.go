package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/web/session"
)

// values is somebody's session.
type values struct {
	mu sync.Mutex
	of map[string][]byte
}

func (v *values) session(key string, opts *session.Options) *session.Session {
	return session.New(
		func(context.Context) ([]byte, error) {
			v.mu.Lock()
			defer v.mu.Unlock()
			return v.of[key], nil
		},
		func(_ context.Context, data []byte) error {
			v.mu.Lock()
			defer v.mu.Unlock()
			if v.of[key] = data; data == nil {
				delete(v.of, key)
			}
			return nil
		}, opts)
}

func TestConformance(t *testing.T) {
	for name, max := range map[string]int{"any size": 0, "a cookie": session.CookieSize} {
		t.Run(name, func(t *testing.T) {
			persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
				s := (&values{of: map[string][]byte{}}).session("k", &session.Options{MaxSize: max})
				return func() (persistence.Persistence, error) { return s, nil }
			}, &persistencetest.Options{MaxSize: max})
		})
	}
}

// TestTooLargeForACookie: nothing is changed, and the error says what to do and
// quotes nothing.
func TestTooLargeForACookie(t *testing.T) {
	v := &values{of: map[string][]byte{}}
	s := v.session("k", &session.Options{MaxSize: session.CookieSize})
	require.NoError(t, s.Save(t.Context(), []byte("before")))
	large := []byte(strings.Repeat("pl4nted-s3cret", 1000))
	rev, err := s.Revision(t.Context())
	require.NoError(t, err)
	_, err = s.SaveIf(t.Context(), large, rev)
	for _, err := range []error{err, s.Save(t.Context(), large)} {
		require.ErrorIs(t, err, persistence.ErrTooLarge)
		require.ErrorContains(t, err, "4,096")
		require.NotContains(t, err.Error(), "pl4nted")
	}
	require.Equal(t, "before", string(v.of["k"]))
}

// TestErrorsOfTheFunctions come back with what was tried, unless they say it.
func TestErrorsOfTheFunctions(t *testing.T) {
	failure := errors.New("the session is closed")
	own := &persistence.Error{Op: "load", Backend: "scs", Err: persistence.ErrUnavailable}
	for _, err := range []error{failure, own} {
		s := session.New(func(context.Context) ([]byte, error) { return nil, err }, func(context.Context, []byte) error { return nil }, nil)
		_, got := s.Load(t.Context())
		require.ErrorIs(t, got, err)
		var e *persistence.Error
		ok := errors.As(got, &e)
		require.True(t, ok)
		require.NotEmpty(t, e.Backend)
		require.ErrorIs(t, s.Save(t.Context(), nil), err)
	}
	s := session.New(func(context.Context) ([]byte, error) { return nil, nil }, func(context.Context, []byte) error { return failure }, nil)
	require.ErrorIs(t, s.Save(t.Context(), []byte("x")), failure)
	require.ErrorIs(t, s.Delete(t.Context()), failure)
}

func ExampleNew() {
	cookie := map[string][]byte{} // of the request, for example
	s := session.New(
		func(context.Context) ([]byte, error) { return cookie["tokens"], nil },
		func(_ context.Context, data []byte) error { cookie["tokens"] = data; return nil },
		&session.Options{MaxSize: session.CookieSize})
	err := s.Save(context.Background(), make([]byte, 10_000))
	fmt.Println(errors.Is(err, persistence.ErrTooLarge))
	// Output: true
}
