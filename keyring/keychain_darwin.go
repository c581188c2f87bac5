package keyring

func newSystem(s settings) Limited {
	return &keychain{settings: s, run: execSecurity("/usr/bin/security")}
}
