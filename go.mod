module github.com/tokenkeep/tokenkeep

go 1.25.0

require (
	github.com/AzureAD/microsoft-authentication-library-for-go v1.8.0 // in lower ones, a confidential client's Account names no partition
	github.com/fsnotify/fsnotify v1.10.0 // 1.7 to 1.9 leave files open on macOS and the BSDs when a watcher is closed
	github.com/godbus/dbus/v5 v5.2.2 // go-keyring requires it
	github.com/gofrs/flock v0.13.0 // has Flock.Stat
	github.com/stretchr/testify v1.11.1 // flock requires it
	github.com/zalando/go-keyring v0.2.8 // lower ones take a wincred that may free memory while Windows reads it
	golang.org/x/crypto v0.1.0
	golang.org/x/oauth2 v0.19.0 // lower ones bring App Engine's modules
	golang.org/x/sys v0.37.0 // flock requires it
	golang.org/x/term v0.1.0
)

require (
	github.com/danieljoos/wincred v1.2.3 // indirect
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/golang-jwt/jwt/v5 v5.2.2 // indirect
	github.com/google/uuid v1.3.0 // indirect
	github.com/kr/text v0.2.0 // indirect
	github.com/kylelemons/godebug v1.1.0 // indirect
	github.com/pkg/browser v0.0.0-20210911075715-681adbf594b8 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	github.com/rogpeppe/go-internal v1.9.0 // indirect
	golang.org/x/sync v0.10.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
