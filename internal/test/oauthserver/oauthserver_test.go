package oauthserver_test

import (
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
)

func start(t *testing.T, o oauthserver.Options) *oauthserver.Server {
	t.Helper()
	s, err := oauthserver.Start(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func refresh(t *testing.T, s *oauthserver.Server, refreshToken string) (*oauth2.Token, error) {
	t.Helper()
	return s.Config().TokenSource(t.Context(), &oauth2.Token{RefreshToken: refreshToken}).Token()
}

// status returns what the API answers to an access token.
func status(t *testing.T, s *oauthserver.Server, token *oauth2.Token) int {
	t.Helper()
	res, err := oauth2.NewClient(t.Context(), oauth2.StaticTokenSource(token)).Get(s.URL + "/me")
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res.StatusCode
}

func TestReuseRevokesTheFamily(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	for name, o := range map[string]oauthserver.Options{"in memory": {}, "in a file": {StateFile: state}} {
		t.Run(name, func(t *testing.T) {
			s := start(t, o)
			first, err := s.SignIn("alice")
			require.NoError(t, err)
			other, err := s.SignIn("alice")
			require.NoError(t, err)
			second, err := refresh(t, s, first.RefreshToken)
			require.NoError(t, err)
			require.NotEqual(t, first.RefreshToken, second.RefreshToken)
			require.Equal(t, http.StatusOK, status(t, s, second))

			_, err = refresh(t, s, first.RefreshToken)
			require.ErrorContains(t, err, "invalid_grant")
			require.Equal(t, 1, s.Reuses())
			require.Equal(t, 1, s.SignOuts())
			_, err = refresh(t, s, second.RefreshToken)
			require.ErrorContains(t, err, "invalid_grant")
			require.Equal(t, http.StatusUnauthorized, status(t, s, second))
			again, err := refresh(t, s, other.RefreshToken)
			require.NoError(t, err, "another sign-in")
			if o.StateFile != "" {
				_, err = refresh(t, start(t, o), again.RefreshToken)
				require.NoError(t, err, "another server of that state")
			}
		})
	}
}

func TestOptions(t *testing.T) {
	s := start(t, oauthserver.Options{NoRotation: true})
	token, err := s.SignIn("alice")
	require.NoError(t, err)
	for range 2 {
		next, err := refresh(t, s, token.RefreshToken)
		require.NoError(t, err)
		require.Nil(t, next.Extra("refresh_token"))
	}
	s = start(t, oauthserver.Options{NoRevocation: true})
	token, err = s.SignIn("alice")
	require.NoError(t, err)
	for range 2 {
		_, err = refresh(t, s, token.RefreshToken)
		require.NoError(t, err)
	}
	require.Equal(t, 1, s.Reuses())
	require.Zero(t, s.SignOuts())
}

func TestAuthorizationCode(t *testing.T) {
	s := start(t, oauthserver.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	answers := make(chan url.Values, 1)
	back := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { answers <- r.URL.Query() })}
	go back.Serve(l) //nolint:errcheck // always an error: that of Close
	t.Cleanup(func() { back.Close() })
	conf := s.Config()
	conf.RedirectURL = "http://" + l.Addr().String() + "/back"
	code := func(verifier string) string {
		require.NoError(t, oauthserver.Browse(t.Context(), conf.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)), "alice"))
		q := <-answers
		require.Equal(t, "state", q.Get("state"))
		return q.Get("code")
	}
	verifier := oauth2.GenerateVerifier()
	c := code(verifier)
	_, err = conf.Exchange(t.Context(), c, oauth2.VerifierOption(verifier))
	require.NoError(t, err)
	_, err = conf.Exchange(t.Context(), c, oauth2.VerifierOption(verifier))
	require.ErrorContains(t, err, "invalid_grant", "a code is good once")
	_, err = conf.Exchange(t.Context(), code(verifier), oauth2.VerifierOption(oauth2.GenerateVerifier()))
	require.ErrorContains(t, err, "invalid_grant", "another verifier")
	require.Error(t, oauthserver.Browse(t.Context(), conf.AuthCodeURL("state"), "alice"), "no challenge")
	conf.RedirectURL = "http://example.com/back"
	require.Error(t, oauthserver.Browse(t.Context(), conf.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)), "alice"), "not on loopback")
}

func TestDeviceCode(t *testing.T) {
	s := start(t, oauthserver.Options{})
	redeem := func(code *oauth2.DeviceAuthResponse) (*oauth2.Token, error) {
		// Without the polling, and its pauses, of Config.DeviceAccessToken.
		return s.Config().Exchange(t.Context(), "", oauth2.SetAuthURLParam("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
			oauth2.SetAuthURLParam("device_code", code.DeviceCode))
	}
	code, err := s.Config().DeviceAuth(t.Context())
	require.NoError(t, err)
	_, err = redeem(code)
	require.ErrorContains(t, err, "authorization_pending")
	require.Error(t, oauthserver.Approve(t.Context(), code.VerificationURI, "WRONG", "alice"))
	require.NoError(t, oauthserver.Approve(t.Context(), code.VerificationURI, code.UserCode, "alice"))
	token, err := redeem(code)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status(t, s, token))
	_, err = redeem(code)
	require.ErrorContains(t, err, "expired_token")

	code, err = s.Config().DeviceAuth(t.Context())
	require.NoError(t, err)
	require.NoError(t, oauthserver.Decline(t.Context(), code.VerificationURI, code.UserCode, "alice"))
	_, err = redeem(code)
	require.ErrorContains(t, err, "access_denied")
}
