package tokensource_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/oauthserver"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/tokensource"
)

func TestSmoke(t *testing.T) {
	srv, err := oauthserver.Start(oauthserver.Options{Extra: map[string]any{"id_token": "x", "deep": map[string]any{"a": 1}}})
	require.NoError(t, err)
	defer srv.Close()
	mem := persistence.NewMemory()
	c, err := persistence.New(mem)
	require.NoError(t, err)
	s, err := tokensource.New(t.Context(), c, "github", srv.Config())
	require.NoError(t, err)
	_, err = s.Token()
	require.ErrorIs(t, err, tokensource.ErrSignInRequired)
	t.Log(err)
	tok, err := srv.SignIn("alice")
	require.NoError(t, err)
	require.NoError(t, s.Save(t.Context(), tok))
	a, err := s.Token()
	require.NoError(t, err)
	s.Invalidate(a)
	b, err := s.Token()
	require.NoError(t, err)
	require.NotEqual(t, a.AccessToken, b.AccessToken)
	d, _ := mem.Load(t.Context())
	t.Log(string(d))
	require.Equal(t, 1, srv.Refreshes())
	require.NoError(t, srv.Revoke("alice"))
	s.Invalidate(b)
	_, err = s.Token()
	require.ErrorIs(t, err, tokensource.ErrSignInRequired)
	t.Log(err)
	d, _ = mem.Load(t.Context())
	t.Log(string(d))
}
