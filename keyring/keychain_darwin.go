package keyring

func newSystem(s settings) Limited { return &keychain{s, execSecurity("/usr/bin/security")} }
