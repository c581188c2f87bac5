package interop

import (
	"os"
	"path/filepath"
	"runtime"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// AzureCLIClientID is the client id of Azure CLI. A program that gets tokens with it
// acts as Azure CLI; see the package comment.
const AzureCLIClientID = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"

// AzureCLI returns the token cache of Azure CLI. No Clients means AzureCLIClientID.
// To write to it, set both Options.Write and Options.WriteAsAzureCLI; a write then
// fails with ErrUsername where Azure CLI would fail afterwards.
//
// The cache lies in the folder that AZURE_CONFIG_DIR names, else in .azure in the
// home folder. On Linux and macOS it is a plain file, which need not exist yet. If
// Azure CLI was told to encrypt it, AzureCLI fails with ErrUnavailable, and so it
// does on Windows.
func AzureCLI(o Options) (*Store, error) {
	dir := os.Getenv("AZURE_CONFIG_DIR")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, openFailure("", remedy.With("Set AZURE_CONFIG_DIR.", err))
		}
		dir = filepath.Join(home, ".azure")
	}
	plain := filepath.Join(dir, "msal_token_cache.json")
	if len(o.Clients) == 0 {
		o.Clients = []string{AzureCLIClientID}
	}
	if encrypted := encryptedInUse(dir, plain); encrypted != "" {
		return nil, openFailure(encrypted, remedy.Errorf("Use a sign-in of this program's own, or tell Azure CLI to store plain text: az config set core.encrypt_token_cache=false.",
			"%w: Azure CLI keeps its tokens encrypted", persistence.ErrUnavailable))
	}
	return open("Azure CLI", plain, o)
}

// encryptedInUse returns the file that shows that the encrypted cache is in use and
// not the plain one, or "". Both may be there after a change of the setting: the
// later one is in use.
func encryptedInUse(dir, plain string) string {
	for _, name := range []string{"msal_token_cache.bin", "msal_token_cache.sig"} {
		path := filepath.Join(dir, name)
		other, err := os.Stat(path)
		if err != nil {
			continue
		}
		own, err := os.Stat(plain)
		if err != nil || other.ModTime().After(own.ModTime()) {
			return path
		}
	}
	if runtime.GOOS == "windows" {
		return filepath.Join(dir, "msal_token_cache.bin")
	}
	return ""
}

func openFailure(location string, err error) error {
	return &persistence.Error{Op: "open", Backend: "Azure CLI", Location: location, Err: persistence.Cause(err), Remedy: persistence.Remedy(err)}
}
