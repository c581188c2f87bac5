package azcredential_test

import (
	"context"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
)

// The test authority also serves the credentials of azidentity: a program that has
// both kinds tests them with one authority.
func TestAuthorityOfAzidentity(t *testing.T) {
	const app, secret = "11111111-0000-4000-8000-000000000002", "planted-secret"
	s, err := entratest.Start(entratest.Options{Secrets: map[string]string{app: secret}})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	o := azcore.ClientOptions{Transport: s.Client()}
	withSecret := func(secret string) azcore.TokenCredential {
		c, err := azidentity.NewClientSecretCredential(entratest.Contoso, app, secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: o})
		require.NoError(t, err)
		return c
	}
	byDeviceCode, err := azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{
		ClientOptions: o, ClientID: appID, TenantID: entratest.Contoso,
		UserPrompt: func(ctx context.Context, m azidentity.DeviceCodeMessage) error {
			return entratest.Approve(ctx, s.Client(), m.VerificationURL, m.UserCode, entratest.Alice.Username)
		},
	})
	require.NoError(t, err)
	for _, c := range []azcore.TokenCredential{withSecret(secret), byDeviceCode} {
		token, err := c.GetToken(t.Context(), cae)
		require.NoError(t, err)
		require.NotEmpty(t, token.Token)
	}
	_, err = withSecret("another").GetToken(t.Context(), cae)
	require.ErrorAs(t, err, new(*azidentity.AuthenticationFailedError), "control")
}
