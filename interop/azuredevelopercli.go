package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// AzureDeveloperCLI returns the token cache of Azure Developer CLI (azd), to be read
// only: it fails if Options.Write is set. A running azd that has stored something
// does not read the file again and writes its whole memory, so a save would not
// last. No Clients means AzureCLIClientID, which is also azd's.
//
// The cache is the file auth/msal/cache.json in the folder that AZD_CONFIG_DIR names,
// else in .azd in the home folder. On Windows it is cache.bin, encrypted by DPAPI, and
// read as by [DataProtection].
//
// azd itself has not been run: its files are made by stand-ins after its source. The
// file of Windows has been tried under Wine.
func AzureDeveloperCLI(o Options) (*Store, error) {
	p := place{backend: "Azure Developer CLI", overwritten: "azd writes its whole memory, so what is saved here would be lost"}
	dir := os.Getenv("AZD_CONFIG_DIR")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, (&Store{place: p}).fail("open", remedy.With("Set AZD_CONFIG_DIR.", err))
		}
		dir = filepath.Join(home, ".azd")
	}
	name := "cache.json"
	if runtime.GOOS == "windows" {
		name, p.content = "cache.bin", azdContent(unprotect)
	}
	p.path = filepath.Join(dir, "auth", "msal", name)
	if len(o.Clients) == 0 {
		o.Clients = []string{AzureCLIClientID}
	}
	return openPlace(p, o)
}

// azdContent returns a function that decrypts azd's file on Windows: a JSON object
// with the base64 text of a blob of DPAPI or, from older versions, the bare blob.
func azdContent(unprotect func(context.Context, []byte) ([]byte, error)) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, file []byte) ([]byte, error) {
		if !bytes.HasPrefix(bytes.TrimSpace(file), []byte("{")) {
			return unprotect(ctx, file)
		}
		var wrapped struct {
			Type string
			Data []byte
		}
		if err := json.Unmarshal(file, &wrapped); err != nil {
			return nil, signInThere("%w: it is neither a blob of DPAPI nor a JSON object around one", persistence.ErrCorrupt)
		}
		if wrapped.Type != "CryptProtectData" {
			return nil, fmt.Errorf("%w of the other program: it is encrypted in a way that is not known here", persistence.ErrUnsupportedVersion)
		}
		if len(wrapped.Data) == 0 {
			return nil, signInThere("%w: it holds no blob of DPAPI", persistence.ErrCorrupt)
		}
		return unprotect(ctx, wrapped.Data)
	}
}
