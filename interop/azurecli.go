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
// home folder, in one of these forms. If there are several, AzureCLI uses the one that
// was written last before the call. None of them need exist yet.
//
//   - Linux and macOS: msal_token_cache.json, a plain file, the default there.
//   - Windows: msal_token_cache.bin, a file encrypted by DPAPI and read as by
//     [DataProtection], the default there; or the plain file.
//   - Linux, where Azure CLI was told to encrypt: an item of the Secret Service, read
//     as by [SecretService], with msal_token_cache.bin as its signal. Azure CLI keeps
//     its service principals in the same item; where it has stored these last, Load
//     fails with ErrCorrupt.
//   - Linux, as a later Azure CLI may do it: an item of its own, with
//     msal_token_cache.sig as its signal.
//   - macOS, where Azure CLI was told to encrypt: AzureCLI fails with ErrUnavailable,
//     because this package cannot read the Keychain.
//
// Only the plain file is written: with Write, AzureCLI fails with [ErrReadOnly] where
// another form is in use.
//
// The plain file and the first item have been tried beside Azure CLI 2.45 on Linux.
// The names of the other item are from a change that is proposed for Azure CLI, and
// have been tried with MSAL Python. The file of Windows has been read under Wine, with
// a stand-in for Azure CLI; nothing was run on macOS.
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
	path := encryptedInUse(dir, plain)
	if path != "" && o.Write {
		return nil, openFailure(path, remedy.Errorf("Leave out Write, or have Azure CLI store plain text: az config set core.encrypt_token_cache=false.",
			"%w: only Azure CLI's plain file is written", ErrReadOnly))
	}
	switch {
	case path == "":
		return open("Azure CLI", plain, o)
	case runtime.GOOS == "windows":
		return openPlace(place{backend: "Azure CLI", path: path, content: unprotect}, o)
	case runtime.GOOS == "darwin":
		return nil, openFailure(path, remedy.Errorf("Use a sign-in of this program's own, or tell Azure CLI to store plain text: az config set core.encrypt_token_cache=false.",
			"%w: Azure CLI keeps its tokens in the Keychain", persistence.ErrUnavailable))
	case filepath.Ext(path) == ".bin":
		return secretService("Azure CLI", azureCLIItem, path, o)
	default:
		return secretService("Azure CLI", laterAzureCLIItem, path, o)
	}
}

// The items that Azure CLI makes on Linux where it encrypts, and that a later one
// may make.
var (
	azureCLIItem      = Item{Schema: "my_schema_name", Attributes: map[string]string{"my_attr1": "foo", "my_attr2": "bar"}}
	laterAzureCLIItem = Item{Schema: "Microsoft Azure CLI", Attributes: map[string]string{"type": "Token cache"}}
)

// encryptedInUse returns the file that shows that an encrypted cache is in use and
// not the plain one, or "". Several may be there after a change of the setting: the
// last one that was written is in use.
func encryptedInUse(dir, plain string) string {
	encrypted := later(filepath.Join(dir, "msal_token_cache.bin"), filepath.Join(dir, "msal_token_cache.sig"))
	if runtime.GOOS == "windows" {
		encrypted = filepath.Join(dir, "msal_token_cache.bin")
	}
	other, err := os.Stat(encrypted)
	if err != nil {
		if _, err := os.Stat(plain); err != nil && runtime.GOOS == "windows" {
			return encrypted // nothing is there yet, and this is the default
		}
		return ""
	}
	if own, err := os.Stat(plain); err == nil && !other.ModTime().After(own.ModTime()) {
		return ""
	}
	return encrypted
}

func openFailure(location string, err error) error {
	return &persistence.Error{Op: "open", Backend: "Azure CLI", Location: location, Err: persistence.Cause(err), Remedy: persistence.Remedy(err)}
}
