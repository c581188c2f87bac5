package tokensource

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/quote"
)

// The fields of an entry that say which client it was made with. Fields of a provider
// that have these names are dropped.
const (
	boundClient   = "bound_client_id"
	boundIssuer   = "bound_issuer"
	boundEndpoint = "bound_token_endpoint"
)

// client is what an entry is bound to: whose refresh token it has, and where that
// may be sent.
type client struct{ id, issuer, endpoint string }

// configOf returns the *oauth2.Config that r is or embeds, or nil.
func configOf(r Refresher) *oauth2.Config {
	if c, ok := r.(*oauth2.Config); ok {
		return c
	}
	v := reflect.Indirect(reflect.ValueOf(r))
	if v.Kind() != reflect.Struct {
		return nil
	}
	for i := range v.NumField() {
		f := v.Field(i)
		if !v.Type().Field(i).Anonymous || !f.CanInterface() {
			continue
		}
		if f.CanAddr() {
			if c, ok := f.Addr().Interface().(*oauth2.Config); ok {
				return c
			}
		}
		if c, ok := f.Interface().(*oauth2.Config); ok {
			return c
		}
	}
	return nil
}

// client returns what the Source's tokens are bound to, or nil if its Refresher
// does not tell.
func (s *Source) client() *client {
	c := configOf(s.conf)
	if c == nil {
		return nil
	}
	return &client{c.ClientID, s.issuer, c.Endpoint.TokenURL}
}

// bind returns e bound to c, or to no client if c is nil.
func (e entry) bind(c *client) entry {
	var own client
	if c != nil {
		own = *c
	}
	for name, v := range map[string]string{boundClient: own.id, boundIssuer: own.issuer, boundEndpoint: own.endpoint} {
		delete(e, name)
		if v != "" {
			e[name], _ = json.Marshal(v) // a string
		}
	}
	return e
}

// checkClient returns an error if e is bound to another client or provider than
// the Source's. An entry that is not bound is anybody's.
func (s *Source) checkClient(e entry) error {
	bound := client{e.text(boundClient), e.text(boundIssuer), e.text(boundEndpoint)}
	if bound.issuer == "" && bound.endpoint == "" {
		return nil
	}
	own := "does not tell its client"
	if c := s.client(); c != nil {
		same := bound.endpoint == c.endpoint
		if bound.issuer != "" && c.issuer != "" {
			same = bound.issuer == c.issuer
		}
		former := func(address string) bool { return address != "" && slices.Contains(s.former, address) }
		if bound.id == c.id && (same || former(bound.issuer) || former(bound.endpoint)) {
			return nil
		}
		own = "is " + c.String()
	}
	return s.fail("refresh", fmt.Errorf("%w: %w: it was made with %s, and this program %s", ErrSignInRequired, ErrOtherClient, bound, own),
		"Sign in again. If another program uses this key too, give each program a key of its own.")
}

func (c client) String() string {
	at := c.issuer
	if at == "" {
		at = c.endpoint
	}
	return fmt.Sprintf("client %s at %s", quote.Text(c.id), quote.Text(at))
}
