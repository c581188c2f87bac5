package tokensource

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// What is stored and is no token cache needs nobody who moves it by hand: it is
// renamed, and a sign-in is stored.
func TestSetsAside(t *testing.T) {
	for name, use := range map[string]func(context.Context, *persistence.Cache, *Source) error{
		"Token": func(_ context.Context, _ *persistence.Cache, s *Source) error {
			_, err := s.Token()
			require.ErrorIs(t, err, ErrSignInRequired)
			return nil
		},
		"Save": func(ctx context.Context, _ *persistence.Cache, s *Source) error {
			return s.Save(ctx, &oauth2.Token{AccessToken: "a", RefreshToken: "r"})
		},
		"Delete": func(ctx context.Context, _ *persistence.Cache, s *Source) error { return s.Delete(ctx) },
		"Keys": func(ctx context.Context, c *persistence.Cache, _ *Source) error {
			keys, err := Keys(ctx, c)
			require.Empty(t, keys)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			const text = "my notes, no cache"
			path := filepath.Join(t.TempDir(), "cache.json")
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			file, err := fallback.NewInsecurePlaintextFile(path, func(fallback.Warning) {}, nil)
			require.NoError(t, err)
			c, err := persistence.New(file)
			require.NoError(t, err)
			s, err := New(t.Context(), c, "k", &oauth2.Config{ClientID: "id"})
			require.NoError(t, err)
			require.NoError(t, use(t.Context(), c, s))
			kept := 0
			found, err := filepath.Glob(path + ".*")
			require.NoError(t, err)
			for _, f := range found {
				if data, err := os.ReadFile(f); err == nil && string(data) == text {
					kept++
				}
			}
			require.Equal(t, 1, kept, "what was there is kept: %v", found)
			require.NoError(t, s.Save(t.Context(), &oauth2.Token{AccessToken: "a"}))
			keys, err := Keys(t.Context(), c)
			require.NoError(t, err)
			require.Equal(t, []string{"k"}, keys)
		})
	}
}
