package tokensource

import (
	"context"
	"errors"
	"net/http"

	"golang.org/x/oauth2"
)

// withClient returns ctx with the HTTP client for token requests: that of ctx, or
// else that of New's context, or else the default one. It follows no redirect: a
// 307 or a 308 would have it repeat the refresh token and the client secret
// wherever the answer points.
func (s *Source) withClient(ctx context.Context) context.Context {
	from := http.DefaultClient
	for _, c := range []context.Context{ctx, s.ctx} {
		if own, ok := c.Value(oauth2.HTTPClient).(*http.Client); ok && own != nil {
			from = own
			break
		}
	}
	own := *from
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return context.WithValue(ctx, oauth2.HTTPClient, &own)
}

// exchange makes one token request, or two where the first was refused for how it
// named the client.
func (s *Source) exchange(ctx context.Context, token string) (*oauth2.Token, error) {
	conf, ok := s.conf.(*oauth2.Config)
	if !ok || conf.Endpoint.AuthStyle != oauth2.AuthStyleAutoDetect {
		return s.conf.TokenSource(ctx, &oauth2.Token{RefreshToken: token}).Token()
	}
	// To detect the style, package oauth2 sends a request that failed once more,
	// whatever the reason, and so spends a refresh token twice. A second request
	// is safe only where the first was refused for its style.
	s.mu.Lock()
	known := s.style
	s.mu.Unlock()
	styles := []oauth2.AuthStyle{known}
	if conf.ClientSecret == "" {
		styles[0] = oauth2.AuthStyleInParams // RFC 6749, section 3.2.1
	} else if known == oauth2.AuthStyleAutoDetect {
		styles = []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams}
	}
	for i, style := range styles {
		c := *conf
		c.Endpoint.AuthStyle = style
		t, err := c.TokenSource(ctx, &oauth2.Token{RefreshToken: token}).Token()
		if err != nil && i+1 < len(styles) && refusesClient(err) {
			continue
		}
		if err == nil {
			s.mu.Lock()
			s.style = style
			s.mu.Unlock()
		}
		return t, err
	}
	panic("not reached")
}

// refusesClient reports whether a request was refused for how it named the client.
func refusesClient(err error) bool {
	var refused *oauth2.RetrieveError
	ok := errors.As(err, &refused)
	if !ok || refused.Response == nil {
		return false
	}
	switch refused.ErrorCode {
	case "invalid_client", "invalid_request", "unauthorized_client", "incorrect_client_credentials":
		return refused.Response.StatusCode < 500
	case "":
		return refused.Response.StatusCode == http.StatusUnauthorized
	}
	return false
}
