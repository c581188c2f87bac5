package tokensource

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
)

func benchSource(b *testing.B) *Source {
	b.Helper()
	c, err := sharedCache(filepath.Join(b.TempDir(), "cache"))
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(context.Background(), c, key, oauthserver.Config("http://127.0.0.1:1"))
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Save(context.Background(), &oauth2.Token{AccessToken: "a", RefreshToken: "r", Expiry: time.Now().Add(24 * time.Hour)}); err != nil {
		b.Fatal(err)
	}
	return s
}

// A good token in hand. oauth2.ReuseTokenSource is what one would do without this
// package.
func BenchmarkToken(b *testing.B) {
	s := benchSource(b)
	static := oauth2.ReuseTokenSource(&oauth2.Token{AccessToken: "a", Expiry: time.Now().Add(24 * time.Hour)}, s)
	for name, source := range map[string]oauth2.TokenSource{"Source": s, "ReuseTokenSource": static} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := source.Token(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A token that another process has refreshed: the first call after the one in
// hand has expired, on an encrypted file.
func BenchmarkTokenOfAnotherProcess(b *testing.B) {
	s := benchSource(b)
	b.ReportAllocs()
	for b.Loop() {
		s.current.Store(nil)
		if _, err := s.Token(); err != nil {
			b.Fatal(err)
		}
	}
}

// A whole refresh, on an encrypted file and with a provider on loopback: lock,
// request, save.
func BenchmarkRefresh(b *testing.B) {
	s := benchSource(b)
	server, err := oauthserver.Start(oauthserver.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	token, err := server.SignIn("alice")
	if err != nil {
		b.Fatal(err)
	}
	s.conf = server.Config()
	if err := s.Save(context.Background(), token); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		t, err := s.Token()
		if err != nil {
			b.Fatal(err)
		}
		s.Invalidate(t)
	}
}
