package entratest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
)

// SignIn signs a user in with a device code, as a public client with the ID
// clientID and the user's home tenant, and leaves the tokens in c: what a program
// finds that starts again after its user has signed in. The scopes are those that
// the program will ask for.
func (s *Server) SignIn(ctx context.Context, c cache.ExportReplace, clientID string, u User, scopes ...string) (public.AuthResult, error) {
	client, err := public.New(clientID, public.WithAuthority(Authority(u.Tenant)), public.WithHTTPClient(s.Client()), public.WithCache(c))
	if err != nil {
		return public.AuthResult{}, fmt.Errorf("entratest: %w", err)
	}
	dc, err := client.AcquireTokenByDeviceCode(ctx, scopes)
	if err != nil {
		return public.AuthResult{}, fmt.Errorf("entratest: %w", err)
	}
	if err := Approve(ctx, s.Client(), dc.Result.VerificationURL, dc.Result.UserCode, u.Username); err != nil {
		return public.AuthResult{}, err
	}
	return dc.AuthenticationResult(ctx)
}

// Expire returns MSAL's serialized cache with every access token in it (also those of
// package azcredential) expired an hour ago, so that the next silent sign-in refreshes.
// It fails if data is not such a cache, and returns nil for nil. It has the signature of
// the function that persistence.Cache.Update takes:
//
//	err := c.Update(ctx, entratest.Expire)
func Expire(data []byte) ([]byte, error) {
	if data == nil {
		return nil, nil
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, errors.New("entratest: not a serialized cache of MSAL") // not err: it may quote a secret
	}
	ago := fmt.Sprint(time.Now().Add(-time.Hour).Unix())
	for _, name := range []string{"AccessToken", "AccessTokenCAE"} {
		section, ok := doc[name]
		if !ok {
			continue
		}
		var tokens map[string]map[string]any
		if err := json.Unmarshal(section, &tokens); err != nil {
			return nil, errors.New("entratest: the access tokens are not those of MSAL's serialized cache")
		}
		for _, t := range tokens {
			if t == nil {
				continue // null
			}
			t["expires_on"], t["extended_expires_on"] = ago, ago
			delete(t, "refresh_on")
		}
		section, err := json.Marshal(tokens)
		if err != nil {
			return nil, err
		}
		doc[name] = section
	}
	return json.Marshal(doc)
}
