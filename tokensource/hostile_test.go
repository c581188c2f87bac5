package tokensource

// A provider that does what none should, and answers that are not a provider's.

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
)

// Go repeats a POST, with all that is in it, where a 307 or a 308 points.
func TestNoRedirectIsFollowed(t *testing.T) {
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader, oauth2.AuthStyleAutoDetect} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			t.Run(fmt.Sprint(style, status), func(t *testing.T) {
				sent := 0
				elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { sent++ }))
				defer elsewhere.Close()
				provider := httptest.NewServer(http.RedirectHandler(elsewhere.URL+"/token?who=me", status))
				defer provider.Close()
				w := newWorld(t, oauthserver.Options{})
				conf := w.server.Config()
				conf.ClientSecret, conf.Endpoint.AuthStyle, conf.Endpoint.TokenURL = "s3cret", style, provider.URL
				s := w.sourceOf(conf)
				token := w.newSignIn()
				token.Expiry = w.clock.now().Add(-time.Minute)
				require.NoError(t, s.Save(t.Context(), token))

				// Not even where the program's own client would follow it.
				follows := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}
				for _, ctx := range []context.Context{t.Context(), context.WithValue(t.Context(), oauth2.HTTPClient, follows)} {
					_, err := s.TokenContext(ctx)
					require.ErrorIs(t, err, ErrTemporary)
					require.ErrorContains(t, err, "redirect")
					require.NotContains(t, err.Error(), "who=me")
				}
				require.Zero(t, sent)
				require.NotNil(t, w.stored())
				require.NotNil(t, follows.CheckRedirect)

				// control: package oauth2 by itself
				conf.TokenSource(t.Context(), &oauth2.Token{RefreshToken: "x"}).Token()
				require.NotZero(t, sent)
			})
		}
	}
}

// What is no OAuth error object says nothing about the sign-in, whatever its
// status; and neither does a code that nobody has registered.
func TestNoOAuthAnswerIsTemporary(t *testing.T) {
	var all []oauthserver.Failure
	for _, status := range []int{200, 204, 300, 400, 401, 402, 403, 404, 405, 407, 410, 413, 418, 451, 500, 502, 511} {
		all = append(all, oauthserver.Failure{Status: status, Body: "<p>Access denied by policy</p>"})
	}
	for _, status := range []int{307, 407, 408, 429, 500, 503, 511} { // no provider says it so
		all = append(all, oauthserver.Failure{Status: status, Code: "invalid_grant"}, oauthserver.Failure{Status: status, Code: "invalid_client"})
	}
	all = append(all, oauthserver.Failure{Status: 400, Code: "no_such_code"}, oauthserver.Failure{Status: 403, Code: "Forbidden"}, oauthserver.Failure{Status: 200, Code: "oops"})
	for _, f := range all {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		w.server.Fail(1, f)
		s := w.source()
		_, err := s.Token()
		require.ErrorIs(t, err, ErrTemporary, "%v", f)
		require.NotErrorIs(t, err, ErrSignInRequired, "%v", f)
		require.NotNil(t, w.stored(), "%v", f)
		_, err = s.Token()
		require.NoError(t, err, "%v", f)
	}
}

// answers serves one answer for ever.
func answers(t *testing.T, status int, contentType string, body func(sent string) string, sees func(*http.Request)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		if sees != nil {
			sees(r)
		}
		rw.Header().Set("Content-Type", contentType)
		rw.WriteHeader(status)
		rw.Write([]byte(body(r.PostForm.Get("refresh_token"))))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// The provider echoes what it was sent, in every encoding.
func TestNoSecretInAnyEncoding(t *testing.T) {
	js := func(s string) string { b, _ := json.Marshal(s); return strings.Trim(string(b), `"`) }
	allJSON := func(s string) string {
		var b strings.Builder
		for _, r := range s {
			fmt.Fprintf(&b, `\u%04X`, r)
		}
		return b.String()
	}
	allPercent := func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, "%%%02x", s[i])
		}
		return b.String()
	}
	encodings := map[string]func(string) string{
		"raw": func(s string) string { return s }, "query": url.QueryEscape, "path": url.PathEscape, "percent": allPercent,
		"json": js, "json all": allJSON, "json twice": func(s string) string { return js(js(s)) },
		"html": html.EscapeString, "form in json": func(s string) string { return js(url.QueryEscape(s)) },
		"percent twice": func(s string) string { return url.QueryEscape(url.QueryEscape(s)) },
		"hex":           func(s string) string { return hex.EncodeToString([]byte(s)) },
		"HEX":           func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
	}
	for name, e := range map[string]*base64.Encoding{"std": base64.StdEncoding, "raw std": base64.RawStdEncoding, "url": base64.URLEncoding, "raw url": base64.RawURLEncoding} {
		for _, before := range []string{"", "a", "ab"} {
			for _, after := range []string{"", "y", "yz"} {
				encodings[fmt.Sprintf("base64 %s %q %q", name, before, after)] = func(s string) string { return e.EncodeToString([]byte(before + s + after)) }
			}
		}
		encodings["Basic "+name] = func(s string) string { return e.EncodeToString([]byte("example-client:" + url.QueryEscape(s))) }
		encodings["plain Basic "+name] = func(s string) string { return e.EncodeToString([]byte("example-client:" + s)) }
		encodings["escaped Basic "+name] = func(s string) string {
			return url.QueryEscape(e.EncodeToString([]byte("example-client:" + url.QueryEscape(s))))
		}
	}
	for _, secret := range []string{"p&s<w>\"'", `a\/"é+ b`, "s3cr3t!", "~~~???>>>", "long enough to be taken for a real one &c."} {
		for name, encode := range encodings {
			echo := encode(secret)
			answer := "bad client (" + echo + ") here"
			got := scrub(answer, []string{secret}, "example-client")
			require.NotContains(t, got, echo, "%s of %q", name, secret)
			require.Contains(t, got, "bad client", "%s of %q: only the secret goes", name, secret)
			require.Contains(t, got, "here", "%s of %q: only the secret goes", name, secret)
		}
	}
	// control: what is no secret stays
	require.Equal(t, "bad client (cDQ=) here", scrub("bad client (cDQ=) here", []string{"p&s<w>"}, "example-client"))
}

// The same through a whole refresh, by whatever the error is printed with.
func TestNoSecretOfTheRequestInErrors(t *testing.T) {
	const secret = `pä&"s<w`
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		var authorization string
		w := newWorld(t, oauthserver.Options{})
		conf := w.server.Config()
		conf.ClientSecret, conf.Endpoint.AuthStyle = secret, style
		conf.Endpoint.TokenURL = answers(t, 401, "application/json", func(sent string) string {
			b, err := json.Marshal(map[string]string{"error": "invalid_client", "error_description": "I was sent " + authorization + " and " + secret + " and " + url.QueryEscape(sent)})
			if err != nil {
				t.Error(err)
			}
			return string(b)
		}, func(r *http.Request) { authorization = r.Header.Get("Authorization") })
		s := w.sourceOf(conf)
		require.NoError(t, s.Save(t.Context(), &oauth2.Token{RefreshToken: "r&t"}))
		_, err := s.Token()
		require.NotErrorIs(t, err, ErrTemporary)
		var refused *oauth2.RetrieveError
		require.True(t, errors.As(err, &refused))
		all := fmt.Sprintf("%v %+v %#v %+v", err, err, refused, *refused)
		require.Contains(t, all, "I was sent")
		for _, bad := range []string{secret, "r&t", "r%26t", strings.TrimPrefix(authorization, "Basic ")} {
			if bad != "" {
				require.NotContains(t, all, bad)
			}
		}
	}
}

// A fake token may be a part of a code, or the code a part of what it is in.
func TestRegisteredCodesStayWhole(t *testing.T) {
	for _, token := range []string{"nt", "invalid", "e", "grant", "_", "invalid_grant"} {
		w := newWorld(t, oauthserver.Options{})
		s := w.source()
		require.NoError(t, s.Save(t.Context(), &oauth2.Token{RefreshToken: token}))
		_, err := s.Token() // a token that the provider does not know
		require.ErrorIs(t, err, ErrSignInRequired, token)
		require.ErrorContains(t, err, "invalid_grant", token)
		var refused *oauth2.RetrieveError
		require.True(t, errors.As(err, &refused))
		require.Equal(t, "invalid_grant", refused.ErrorCode)
	}
	for text, want := range map[string]string{
		"account_selection_required":       "account_selection_required", // as long as a token
		"see invalid_grant, ok":            "see invalid_grant, ok",
		"see invalid_grants, ok":           "see invalid_gra…s, ok",
		"a grant nt":                       "a gra… …",
		"x invalid_grant-nt y":             "x invalid_grant-… y",
		strings.Repeat("invalid_grant", 3): "…",
	} {
		require.Equal(t, want, scrub(text, []string{"nt"}, ""), text)
	}
	require.Equal(t, "…", scrub("x invalid_grant y", []string{"x invalid_grant y"}, ""), "the code is a part of the secret")
}

// What the provider writes moves no cursor and reads in no other order.
func TestNothingRawReachesTheTerminal(t *testing.T) {
	evil := "\x1b[2J\x1b]0;x\a\r\n\u009b31m\u202egnp\u2066\u200f\u2028\x00\x7f\ufeff\xff ok"
	form := func(values url.Values) func(string) string { return func(string) string { return values.Encode() } }
	for name, f := range map[string]struct {
		status      int
		contentType string
		body        func(string) string
	}{
		"code":        {400, "application/x-www-form-urlencoded", form(url.Values{"error": {"code" + evil}, "error_description": {"d"}})},
		"description": {400, "application/x-www-form-urlencoded", form(url.Values{"error": {"invalid_client"}, "error_description": {evil}})},
		"no status":   {499, "text/html", func(string) string { return evil }},
		"not parsed":  {200, "text/plain", func(string) string { return "%zz" + evil + "=;" }},
		"number":      {200, "application/json", func(string) string { return `{"access_token":"x","expires_in":"` + "\u202e\u009b" + `"}` }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, oauthserver.Options{})
			conf := w.server.Config()
			conf.Endpoint.TokenURL = answers(t, f.status, f.contentType, f.body, nil)
			s := w.sourceOf(conf)
			require.NoError(t, s.Save(t.Context(), &oauth2.Token{RefreshToken: "r"}))
			_, err := s.Token()
			require.Error(t, err)
			texts := []string{err.Error()}
			var refused *oauth2.RetrieveError
			if errors.As(err, &refused) {
				texts = append(texts, strings.TrimSuffix(refused.Error(), "\nResponse: "), refused.ErrorCode, refused.ErrorDescription, refused.ErrorURI, refused.Response.Status, string(refused.Body))
			}
			for _, text := range texts {
				for _, r := range text {
					require.True(t, unicode.IsPrint(r), "%q in %q", r, text)
				}
				require.NotContains(t, text, "\ufffd")
			}
		})
	}
	t.Run("reason phrase", func(t *testing.T) {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{Status: "403 \u202eevil\x1b[2J", StatusCode: 403, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		})})
		_, err := w.source().TokenContext(ctx)
		require.ErrorContains(t, err, "403 Forbidden")
		require.NotContains(t, err.Error(), "evil")
	})
	t.Run("another error", func(t *testing.T) {
		w := newWorld(t, oauthserver.Options{})
		w.signedIn()
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			return nil, errors.New("Denied \x1b[2J by \u202eproxy") // as a proxy's reason phrase is passed on
		})})
		_, err := w.source().TokenContext(ctx)
		require.ErrorIs(t, err, ErrTemporary)
		require.ErrorContains(t, err, `Denied \x1b[2J by \u202eproxy`)
	})
}

// A Source says which it is, and nothing of its tokens.
func TestSourceFormats(t *testing.T) {
	w := newWorld(t, oauthserver.Options{})
	conf := w.server.Config()
	conf.ClientSecret = "planted-secret"
	s := w.sourceOf(conf)
	require.NoError(t, s.Save(t.Context(), &oauth2.Token{AccessToken: "planted-access", RefreshToken: "planted-refresh"}))
	s.Invalidate(&oauth2.Token{AccessToken: "planted-access"})
	const want = `tokensource.Source "example alice"`
	for _, verb := range "bcdeEfFgGoOpqstTUvxXwz" {
		for _, flags := range []string{"", "+", "#", "+#", " ", "-60", "060", ".3"} {
			got := fmt.Sprintf("%"+flags+string(verb), s)
			if verb == 'T' || verb == 'p' || verb == 'w' { // package fmt asks nobody for these
				require.NotContains(t, got, "planted")
				continue
			}
			require.Equal(t, want, got, "%%%s%c", flags, verb)
			got = fmt.Sprintf("%"+flags+string(verb), []any{s})
			require.NotContains(t, got, "planted")
		}
	}
	for _, handler := range []func(*syncBuffer) slog.Handler{
		func(b *syncBuffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		func(b *syncBuffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b syncBuffer
		slog.New(handler(&b)).Info("x", "source", s, "all", []any{s})
		require.Contains(t, b.String(), "example alice")
		require.NotContains(t, b.String(), "planted")
	}
	var nobody *Source
	require.NotPanics(t, func() { _ = fmt.Sprint(nobody) })
}
