module github.com/tokenkeep/tokenkeep/cmd/tokenkeep/e2e

go 1.25.0

replace github.com/tokenkeep/tokenkeep => ../../../

require (
	github.com/creack/pty v1.1.10 // in lower ones a program has no terminal
	github.com/rogpeppe/go-internal v1.14.1 // has testscript.Main
	github.com/stretchr/testify v1.11.1
	github.com/tokenkeep/tokenkeep v0.1.0
	golang.org/x/sys v0.37.0
)

require (
	github.com/AzureAD/microsoft-authentication-library-for-go v1.8.0 // indirect
	github.com/danieljoos/wincred v1.2.3 // indirect
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/fsnotify/fsnotify v1.10.0 // indirect
	github.com/godbus/dbus/v5 v5.2.2 // indirect
	github.com/gofrs/flock v0.13.0 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	github.com/zalando/go-keyring v0.2.8 // indirect
	golang.org/x/crypto v0.1.0 // indirect
	golang.org/x/term v0.1.0 // indirect
	golang.org/x/tools v0.26.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
