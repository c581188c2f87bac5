module github.com/tokenkeep/tokenkeep/interop/e2e

go 1.25.0

replace github.com/tokenkeep/tokenkeep => ../../

require (
	github.com/Azure/azure-sdk-for-go/sdk/azcore v1.21.0 // azidentity/cache requires it
	github.com/Azure/azure-sdk-for-go/sdk/azidentity v1.13.1 // azidentity/cache requires it
	github.com/Azure/azure-sdk-for-go/sdk/azidentity/cache v0.4.0 // the version that package interop speaks of
	github.com/AzureAD/microsoft-authentication-extensions-for-go/cache v0.1.1
	github.com/AzureAD/microsoft-authentication-library-for-go v1.8.0
	github.com/stretchr/testify v1.11.1
	github.com/tokenkeep/tokenkeep v0.1.0
	golang.org/x/sys v0.40.0 // azidentity/cache requires it
)

require (
	github.com/Azure/azure-sdk-for-go/sdk/internal v1.11.2 // indirect
	github.com/danieljoos/wincred v1.2.3 // indirect
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/fsnotify/fsnotify v1.10.0 // indirect
	github.com/godbus/dbus/v5 v5.2.2 // indirect
	github.com/gofrs/flock v0.13.0 // indirect
	github.com/golang-jwt/jwt/v5 v5.3.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/keybase/go-keychain v0.0.1 // indirect
	github.com/kylelemons/godebug v1.1.0 // indirect
	github.com/pkg/browser v0.0.0-20240102092130-5ac0b6a4141c // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	github.com/zalando/go-keyring v0.2.8 // indirect
	golang.org/x/crypto v0.47.0 // indirect
	golang.org/x/net v0.49.0 // indirect
	golang.org/x/sync v0.19.0 // indirect
	golang.org/x/text v0.33.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
