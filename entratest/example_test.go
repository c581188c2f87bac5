package entratest_test

import (
	"context"
	"fmt"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// A test of what a program does after its user has signed in.
func Example() {
	ctx := context.Background()
	s, err := entratest.Start(entratest.Options{})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	cache, err := persistence.New(persistence.NewMemory())
	if err != nil {
		panic(err)
	}
	const clientID = "11111111-0000-4000-8000-000000000001"
	if _, err := s.SignIn(ctx, cache, clientID, entratest.Alice, "User.Read"); err != nil {
		panic(err)
	}

	// The program under test has these three options from the test.
	client, err := public.New(clientID, public.WithCache(cache),
		public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(s.Client()))
	if err != nil {
		panic(err)
	}
	accounts, err := client.Accounts(ctx)
	if err != nil {
		panic(err)
	}
	silent := func() error {
		_, err := client.AcquireTokenSilent(ctx, []string{"User.Read"}, public.WithSilentAccount(accounts[0]))
		return err
	}
	fmt.Println(accounts[0].PreferredUsername, silent())
	fmt.Println("refreshed:", s.Requests(entratest.GrantRefreshToken))

	if err := cache.Update(ctx, entratest.Expire); err != nil {
		panic(err)
	}
	fmt.Println("an expired access token:", silent())
	fmt.Println("refreshed:", s.Requests(entratest.GrantRefreshToken))

	if err := s.Revoke(entratest.Alice.Username); err != nil {
		panic(err)
	}
	if err := cache.Update(ctx, entratest.Expire); err != nil {
		panic(err)
	}
	fmt.Println("a revoked refresh token needs a sign-in:", silent() != nil)
	// Output:
	// alice@contoso.example <nil>
	// refreshed: 0
	// an expired access token: <nil>
	// refreshed: 1
	// a revoked refresh token needs a sign-in: true
}
