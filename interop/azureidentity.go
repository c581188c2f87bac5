package interop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const azureIdentity = "Azure Identity"

// AzureIdentity returns a token cache of the package azidentity/cache of the Azure
// SDK for Go, to be read only: it fails if Options.Write is set. Programs with that
// package write their whole memory without reading what is stored, so a save
// would not last.
//
// The name is Options.Name of that package; "" means its default, "msal.cache".
// That package keeps the tokens that are subject to continuous access evaluation in
// a second cache, whose name ends in ".cae": to use it, give that name. Clients of Azure
// Resource Manager ask for such tokens.
//
// On Linux the cache is a file in .IdentityService in the folder that
// XDG_CACHE_HOME names, else in .cache in the home folder; versions before 0.4.0
// kept it in .IdentityService in the home folder, and if both are there, the one that
// was written last is used. The file is encrypted with a key in the kernel's keyring:
// the user's persistent keyring or the user keyring. Reading links nothing into any
// keyring of the user or the session. After a restart, or three days without use, the
// key is gone: then Load fails with ErrKeyMissing until the other program has stored
// tokens again. If the key there is not that of the file, the error is ErrWrongKey. If
// the kernel or the container has no keyrings, it is ErrUnavailable.
//
// On Windows the file is in .IdentityService in the user's folder for local data,
// and is read as by [DataProtection]. On macOS the cache is in the Keychain, and
// AzureIdentity fails with ErrUnavailable, as on every other system.
//
// On Linux it has been tried with azidentity/cache 0.4.0 as the writer. For Windows
// it is built, and run under Wine with a stand-in as the writer.
func AzureIdentity(name string, o Options) (*Store, error) {
	if name == "" {
		name = "msal.cache"
	}
	p := place{backend: azureIdentity, overwritten: "programs with azidentity/cache write their whole memory, so what is saved here would be lost"}
	fail := func(err error) (*Store, error) { return nil, (&Store{place: p}).fail("open", err) }
	if name != filepath.Base(name) || name == "." || name == ".." || strings.ContainsAny(name, "\x00/\\") {
		return fail(remedy.Errorf("Pass Options.Name of azidentity/cache.", "the name is not that of a file"))
	}
	switch runtime.GOOS {
	case "linux":
		home, homeErr := os.UserHomeDir()
		dir := os.Getenv("XDG_CACHE_HOME")
		if dir == "" {
			if homeErr != nil {
				return fail(remedy.With("Set HOME or XDG_CACHE_HOME.", homeErr))
			}
			dir = filepath.Join(home, ".cache")
		}
		p.path = filepath.Join(dir, ".IdentityService", name)
		if homeErr == nil {
			p.path = later(p.path, filepath.Join(home, ".IdentityService", name))
		}
		p.content = decryptWithKernelKey(name)
	case "windows":
		dir, err := os.UserCacheDir()
		if err != nil {
			return fail(remedy.With("Set LocalAppData.", err))
		}
		p.path = filepath.Join(dir, ".IdentityService", name)
		p.content = unprotect
	default:
		return fail(remedy.Errorf("Use a sign-in of this program's own.",
			"%w: azidentity/cache keeps its tokens where this package cannot read them: %w", persistence.ErrUnavailable, errors.ErrUnsupported))
	}
	return openPlace(p, o)
}

// later returns the file that was changed last, or the first one where that is not
// known.
func later(first, second string) string {
	b, err := os.Stat(second)
	if err != nil {
		return first
	}
	if a, err := os.Stat(first); err == nil && !b.ModTime().After(a.ModTime()) {
		return first
	}
	return second
}

func signInThere(format string, args ...any) error {
	return remedy.With("Sign in again with the program that keeps it.", fmt.Errorf(format, args...))
}
