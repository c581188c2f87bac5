package azcredential_test

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/tokenkeep/tokenkeep/azcredential"
	"github.com/tokenkeep/tokenkeep/persistence"
)

//lint:file-ignore SA4006 the README leaves out what is the same everywhere: what is done with an error

// armresources stands for one of the SDK's packages.
var armresources struct {
	NewClient func(subscription string, credential azcore.TokenCredential, options any) (any, error)
}

// readme holds the code of README.md, line by line, so that it compiles. A law of
// internal/test/lint compares them. Nothing calls it.
func readme(c *persistence.Cache, clientID, subscription string) error {
	credential, err := azcredential.New(c, clientID, &azcredential.Options{
		DeviceCode: func(_ context.Context, code public.DeviceCodeResult) error {
			fmt.Println(code.Message)
			return nil
		},
	}) // without DeviceCode: in the browser
	client, err := armresources.NewClient(subscription, credential, nil)
	_ = client
	return err
}

var _ = readme
