package interop

import (
	"context"
	"errors"

	"github.com/tokenkeep/tokenkeep/internal/dpapi"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// DataProtection returns the cache in a file at path that msal-extensions of Python,
// .NET, Node or Go keep on Windows, encrypted by DPAPI for the user, without
// entropy. It is read only: DataProtection fails if Options.Write is set. On other
// systems it fails with ErrUnavailable, which is also an errors.ErrUnsupported.
//
// Where Windows does not decrypt the file, Load fails with ErrUnavailable if DPAPI
// does not work for this user in this session, as over SSH without a password, else
// with ErrWrongKey: the file is another user's or another machine's, or damaged.
//
// It has been run under Wine, with a stand-in for the other program, and not
// beside the real ones.
func DataProtection(path string, o Options) (*Store, error) {
	p := place{backend: "DPAPI file", path: path, content: unprotect, overwritten: noWindowsLock}
	if err := systemHasDPAPI(); err != nil {
		return nil, (&Store{place: p}).fail("open", err)
	}
	return openPlace(p, o)
}

const noWindowsLock = "the other programs' lock is not kept on Windows, so a save could be lost or remove theirs"

func systemHasDPAPI() error {
	if _, err := dpapi.Unprotect(nil, nil); errors.Is(err, errors.ErrUnsupported) {
		return remedy.With("Run the program on Windows.", err)
	}
	return nil
}

// unprotect decrypts a blob of DPAPI. It leaves the call behind when ctx ends:
// Windows may ask a domain controller.
func unprotect(ctx context.Context, blob []byte) ([]byte, error) {
	return decrypt(ctx, blob, dpapi.Unprotect, dpapi.Protect)
}

func decrypt(ctx context.Context, blob []byte, unprotect, protect func(data, entropy []byte) ([]byte, error)) ([]byte, error) {
	const otherSession = "Run the program in a session where the user has signed in with the password, at the screen for example."
	plain, err := within.Call(ctx, func() ([]byte, error) { return unprotect(blob, nil) })
	var refused *dpapi.Refused
	switch {
	case errors.Is(err, persistence.ErrUnavailable):
		return nil, remedy.With(otherSession, err)
	case !errors.As(err, &refused):
		return plain, err
	}
	// Does DPAPI work at all for this user in this session?
	works := func() ([]byte, error) {
		out, err := protect([]byte("probe"), nil)
		if err == nil {
			out, err = unprotect(out, nil)
		}
		return out, err
	}
	if _, probe := within.Call(ctx, works); probe != nil {
		if ctx.Err() != nil {
			return nil, probe
		}
		return nil, remedy.Errorf(otherSession, "%w: Windows cannot open this user's protection in this session: %w", persistence.ErrUnavailable, refused)
	}
	return nil, remedy.Errorf("Run the program as the user and on the machine that stored the tokens. If that does not help, sign in again with the program that keeps them.",
		"%w: DPAPI does not decrypt the file for this user on this machine: %w", persistence.ErrWrongKey, refused)
}
