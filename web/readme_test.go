package web_test

import (
	"context"
	"net/http"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
	"github.com/tokenkeep/tokenkeep/web/sealed"
)

//lint:file-ignore SA4006 the README leaves out what is the same everywhere: what is done with an error

// readme holds the code of README.md, line by line, so that it compiles. A law of
// internal/test/lint compares them. Nothing calls it.
func readme(ctx context.Context, keys *sealed.Keys, store *redisstore.Store, authority, clientID, homeAccountID string, credential confidential.Credential, httpClient *http.Client) error {
	c, err := persistence.NewPartitioned(func(_ context.Context, account string) (persistence.Persistence, error) {
		return keys.Account(account, store.Account(account)), nil // sealed above Redis or SQL
	})
	// for each request:
	client, err := confidential.New(authority, clientID, credential, confidential.WithCache(c),
		confidential.WithHTTPClient(httpClient), confidential.WithInstanceDiscovery(false))
	// to sign a user out, instead of RemoveAccount:
	err = c.SignOut(ctx, homeAccountID)
	_ = client
	return err
}

var _ = readme
