package tokencache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEntra(t *testing.T) {
	for _, e := range []string{"login.microsoftonline.com", "LOGIN.windows.net", "sts.windows.net", "login.chinacloudapi.cn", "login.partner.microsoftonline.cn",
		"login.usgovcloudapi.net", "login.microsoftonline.us", "login-us.microsoftonline.com", "login.sovcloud-identity.fr"} {
		require.True(t, Entra(e), e)
	}
	for _, e := range []string{"", "login.contoso.example", "contoso.b2clogin.com", "contoso.ciamlogin.com", "login.microsoftonline.com.contoso.example", "adfs.contoso.example"} {
		require.False(t, Entra(e), e)
	}
}
