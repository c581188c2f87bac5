package azcredential_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep/azcredential"
	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// A program asks its user to sign in when it wants to, and not in the middle of a
// request. The cache of a real program is from tokenkeep.Open, and it needs no
// Transport: here a test authority answers.
func Example() {
	ctx := context.Background()
	authority, err := entratest.Start(entratest.Options{})
	if err != nil {
		panic(err)
	}
	defer authority.Close()
	cache, err := persistence.New(persistence.NewMemory())
	if err != nil {
		panic(err)
	}

	credential, err := azcredential.New(cache, "11111111-0000-4000-8000-000000000001", &azcredential.Options{
		ClientOptions:                  azcore.ClientOptions{Transport: authority.Client()},
		TenantID:                       entratest.Contoso,
		DisableAutomaticAuthentication: true,
		DeviceCode: func(ctx context.Context, code public.DeviceCodeResult) error {
			fmt.Println("please sign in") // a real program prints code.Message
			return entratest.Approve(ctx, authority.Client(), code.VerificationURL, code.UserCode, entratest.Alice.Username)
		},
	})
	if err != nil {
		panic(err)
	}

	// Clients of the SDK make this call, for each request.
	request := policy.TokenRequestOptions{Scopes: []string{"https://management.azure.com/.default"}, EnableCAE: true}
	_, err = credential.GetToken(ctx, request)
	if required := (*azidentity.AuthenticationRequiredError)(nil); errors.As(err, &required) {
		account, err := credential.Authenticate(ctx, required.TokenRequestOptions)
		if err != nil {
			panic(err)
		}
		fmt.Println("signed in:", account.Username)
	}
	_, err = credential.GetToken(ctx, request)
	fmt.Println("silently:", err)
	// Output:
	// please sign in
	// signed in: alice@contoso.example
	// silently: <nil>
}
