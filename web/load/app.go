//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/discovery"
)

const (
	clientID = "22222222-3333-4444-8555-666666666666"
	redirect = "http://localhost/signed-in"
)

var scopes = []string{"User.Read"}

// authority is a test authority whose refresh tokens are for one use.
type authority struct {
	*entratest.Server
	users      []entratest.User
	credential confidential.Credential
	http       *http.Client
	browser    *http.Client
}

func (r *run) authority(users int) *authority {
	a := &authority{}
	for i := range users {
		a.users = append(a.users, entratest.User{Username: fmt.Sprintf("user%d@contoso.example", i), Name: fmt.Sprint("User ", i),
			ID: fmt.Sprintf("d0000000-0000-4000-8000-%012d", i), Tenant: entratest.Contoso})
	}
	secret := rand.Text()
	var err error
	a.Server, err = entratest.Start(entratest.Options{Users: a.users, Secrets: map[string]string{clientID: secret}})
	r.must(err)
	r.Cleanup(func() { a.Close() })
	a.credential, err = confidential.NewCredFromSecret(secret)
	r.must(err)
	a.http, a.browser = a.Client(), a.Client()
	a.http.Transport = discovery.NewTransport(a.http.Transport)
	return a
}

// client makes the client of one request.
func (a *authority) client(c cache.ExportReplace) (confidential.Client, error) {
	return confidential.New(entratest.Authority(entratest.Contoso), clientID, a.credential,
		confidential.WithCache(c), confidential.WithHTTPClient(a.http), confidential.WithInstanceDiscovery(false))
}

func (a *authority) signIn(ctx context.Context, c cache.ExportReplace, u entratest.User) error {
	client, err := a.client(c)
	if err != nil {
		return err
	}
	to, err := client.AuthCodeURL(ctx, clientID, redirect, scopes)
	if err != nil {
		return err
	}
	code, err := entratest.Authorize(ctx, a.browser, to, u.Username)
	if err != nil {
		return fmt.Errorf("the authority: %w", err)
	}
	_, err = client.AcquireTokenByAuthCode(persistence.SigningIn(ctx), code, redirect, scopes)
	return err
}

// silent is what a request of a user who is signed in does.
func (a *authority) silent(ctx context.Context, c cache.ExportReplace, homeAccountID string) error {
	client, err := a.client(c)
	if err != nil {
		return err
	}
	account, err := client.Account(ctx, homeAccountID)
	if err != nil {
		return err
	}
	if account.HomeAccountID == "" {
		return errors.New("nothing is stored")
	}
	_, err = client.AcquireTokenSilent(ctx, scopes, confidential.WithSilentAccount(account))
	return err
}

// template is what is stored of a user whose id is ID, as MSAL writes it.
type template struct{ text, id string }

func (r *run) template(a *authority) template {
	memory := persistence.NewMemory()
	p := r.server(func(string) persistence.Versioned { return memory })
	a.SetLifetime(24*time.Hour, 0)
	r.must(a.signIn(r.ctx, p, a.users[0]))
	data, err := memory.Load(r.ctx)
	r.must(err)
	return template{string(data), a.users[0].ID}
}

// of returns what is stored of the n-th of many users, and the user's home account id.
func (t template) of(n int) (homeAccountID string, data []byte) {
	id := fmt.Sprintf("d0000000-0000-4000-9000-%012d", n)
	return id + "." + entratest.Contoso, []byte(strings.ReplaceAll(t.text, t.id, id))
}

// server returns the cache of one server of the app.
func (r *run) server(store func(key string) persistence.Versioned, opts ...persistence.Option) *persistence.Partitioned {
	p, err := persistence.NewPartitioned(func(_ context.Context, key string) (persistence.Persistence, error) {
		return store(key), nil
	}, append(opts, persistence.WithTimeout(2*time.Second))...)
	r.must(err)
	return p
}
