// Package sample has a token cache for tests of the command. Every secret in it can
// be recognised.
package sample

import (
	"encoding/json"
	"fmt"
	"time"
)

// Planted is in every secret of the cache. Nothing that prints it passes.
const Planted = "PLANTED"

// Cache returns a cache as MSAL Go writes it, with two accounts and an
// application's token, and with two tokens of package tokensource and a section
// that nobody knows.
func Cache(now time.Time) []byte {
	at := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	const env, client = "login.microsoftonline.com", "11111111-2222-4333-8444-555555555555"
	type m = map[string]any
	entry := func(kind, home string, more m) m {
		e := m{"home_account_id": home, "environment": env, "client_id": client, "credential_type": kind, "secret": Planted + "-" + kind + "-" + home}
		for k, v := range more {
			e[k] = v
		}
		return e
	}
	b, err := json.Marshal(m{
		"AccessToken": m{
			"a1":  entry("AccessToken", "alice-id.tenant", m{"realm": "tenant", "target": "User.Read Mail.Read", "cached_at": at(-time.Minute), "expires_on": at(59*time.Minute + 30*time.Second)}),
			"b1":  entry("AccessToken", "bob-id.tenant", m{"realm": "tenant", "target": "User.Read", "expires_on": at(-3*time.Hour - time.Minute)}),
			"app": entry("AccessToken", "", m{"target": "https://graph.microsoft.com/.default", "expires_on": at(time.Hour)}),
		},
		"RefreshToken": m{"r1": entry("RefreshToken", "alice-id.tenant", m{"family_id": "1"}), "r2": entry("RefreshToken", "gone-id.tenant", nil)},
		"IdToken":      m{"i1": entry("IdToken", "alice-id.tenant", m{"realm": "tenant"})},
		"Account": m{
			"x": m{"home_account_id": "alice-id.tenant", "environment": env, "realm": "tenant", "username": "alice@contoso.example", "name": "Alice", "authority_type": "MSSTS", "client_info": Planted + "-client-info"},
			"y": m{"home_account_id": "bob-id.tenant", "environment": env, "realm": "tenant", "username": "bob@contoso.example", "authority_type": "MSSTS"},
		},
		"AppMetadata": m{"m": m{"client_id": client, "environment": env, "family_id": "1"}},
		"OAuth2Token": m{
			"github": m{"access_token": Planted + "-access", "refresh_token": Planted + "-refresh", "token_type": "bearer", "scope": "repo read:user", "expires_in": 28800,
				"cached_at": now.Unix(), "expires_on": now.Add(8*time.Hour - time.Minute).Unix(), "id_token": Planted + "-id",
				"bound_client_id": "Iv1.5e1f", "bound_issuer": "https://user:" + Planted + "@id.example", "bound_token_endpoint": "https://id.example/login/oauth/access_token", "team": m{"name": Planted + "-team"}},
			"gitlab": m{"access_token": Planted + "-access", "token_type": "bearer", "refresh_token": "", "scope": m{"name": Planted + "-scope"}},
		},
		"Wishes": m{Planted + "-key": Planted + "-value"},
	})
	if err != nil {
		panic(err)
	}
	return b
}
