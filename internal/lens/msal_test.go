package lens

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// msalFolder returns the folder of MSAL Go's source.
func msalFolder(t *testing.T) string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/AzureAD/microsoft-authentication-library-for-go").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}
