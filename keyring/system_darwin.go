package keyring

func newSystem(o systemOptions) Limited { return &security{o, execSecurity("/usr/bin/security")} }
