package keyring

import (
	"errors"
	"fmt"
	"unsafe"

	gokeyring "github.com/zalando/go-keyring"
	"golang.org/x/sys/windows"

	"github.com/tokenkeep/tokenkeep/internal/rawcode"
)

func newSystem(s settings) Limited {
	return &credentialManager{settings: s, calls: goKeyring{}, list: listCredentials, classify: classifyWindows, session: checkLogon}
}

func classifyWindows(err error) error {
	switch {
	case errors.Is(err, windows.ERROR_NO_SUCH_LOGON_SESSION):
		return newTrouble(NoSession, "Credential Manager is not available in this logon session", otherLogon)
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return newTrouble(Denied, "Credential Manager denies access", "Ask the administrator whether a policy forbids to store credentials.")
	}
	return nil
}

var (
	advapi32            = windows.NewLazySystemDLL("advapi32.dll")
	credGetSessionTypes = advapi32.NewProc("CredGetSessionTypes")
	credEnumerate       = advapi32.NewProc("CredEnumerateW")
	credFree            = advapi32.NewProc("CredFree")
	// What go-keyring calls. It panics where one of them is missing.
	credFunctions = []*windows.LazyProc{advapi32.NewProc("CredReadW"), advapi32.NewProc("CredWriteW"), advapi32.NewProc("CredDeleteW"), advapi32.NewProc("CredFree")}
)

// credTypeGeneric is CRED_TYPE_GENERIC, the type of go-keyring's credentials.
const credTypeGeneric = 1

// checkLogon returns an error unless this logon session keeps the user's generic
// credentials for other sessions too.
func checkLogon() error {
	if err := credGetSessionTypes.Find(); err != nil {
		return checkPersistence(0, err)
	}
	var maximum [credTypeGeneric + 1]uint32 // for each type, from 0
	ok, _, err := credGetSessionTypes.Call(uintptr(len(maximum)), uintptr(unsafe.Pointer(&maximum[0])))
	if ok != 0 {
		err = nil
	}
	return checkPersistence(maximum[credTypeGeneric], err)
}

// checkFunctions returns an error if this Windows has no Credential Manager: small
// installations lack it.
func checkFunctions(functions []*windows.LazyProc) error {
	for _, f := range functions {
		if err := f.Find(); err != nil {
			return rawcode.Copy(err, f.Name, newTrouble(NoService, fmt.Sprintf("this Windows has no Credential Manager (%v)", err), "Use a passphrase, or a Windows that has it."))
		}
	}
	return nil
}

// goKeyring calls go-keyring.
type goKeyring struct{}

func (goKeyring) Get(service, user string) (string, error) {
	if err := checkFunctions(credFunctions); err != nil {
		return "", err
	}
	return gokeyring.Get(service, user)
}

func (goKeyring) Set(service, user, secret string) error {
	if err := checkFunctions(credFunctions); err != nil {
		return err
	}
	return gokeyring.Set(service, user, secret)
}

func (goKeyring) Delete(service, user string) error {
	if err := checkFunctions(credFunctions); err != nil {
		return err
	}
	return gokeyring.Delete(service, user)
}

// winCredential is CREDENTIALW.
type winCredential struct {
	_, kind    uint32           // flags
	target, _  *uint16          // comment
	_          windows.Filetime // last written
	secretSize uint32
	secret     *byte
	_, _       uint32  // persist, count of the attributes
	_          uintptr // attributes
	_, user    *uint16 // alias
}

// listCredentials returns the user's generic credentials whose targets match filter.
// Windows returns their secrets too: they are cleared, and not looked at.
func listCredentials(filter string) (list []credential, err error) {
	if err := checkFunctions([]*windows.LazyProc{credEnumerate, credFree}); err != nil {
		return nil, err
	}
	name, err := windows.UTF16PtrFromString(filter)
	if err != nil {
		return nil, err
	}
	var count uint32
	var first **winCredential
	if ok, _, err := credEnumerate.Call(uintptr(unsafe.Pointer(name)), 0, uintptr(unsafe.Pointer(&count)), uintptr(unsafe.Pointer(&first))); ok == 0 {
		if errors.Is(err, windows.ERROR_NOT_FOUND) {
			return nil, nil
		}
		return nil, err
	}
	if first == nil {
		return nil, nil
	}
	defer credFree.Call(uintptr(unsafe.Pointer(first)))
	for _, c := range unsafe.Slice(first, count) {
		if c.secret != nil {
			clear(unsafe.Slice(c.secret, c.secretSize))
		}
		if c.kind == credTypeGeneric {
			list = append(list, credential{target: windows.UTF16PtrToString(c.target), user: windows.UTF16PtrToString(c.user)})
		}
	}
	return list, nil
}
