module github.com/tokenkeep/tokenkeep/web

go 1.25.0

replace github.com/tokenkeep/tokenkeep => ../

require (
	github.com/AzureAD/microsoft-authentication-library-for-go v1.8.0
	github.com/alexedwards/scs/v2 v2.9.0 // the example stores only a hash of a session's token; packages need v2.5.0
	github.com/go-sql-driver/mysql v1.6.0 // lower ones use a connection again whose context has ended
	github.com/jackc/pgx/v5 v5.9.2 // lower ones: GO-2026-5004, GO-2026-4772, GO-2026-4771
	github.com/redis/go-redis/v9 v9.6.3 // lower ones: GO-2025-3540, answers to other commands; or a new TLS connection for each command
	github.com/stretchr/testify v1.11.1
	github.com/tokenkeep/tokenkeep v0.1.0
	modernc.org/sqlite v1.46.2 // has SQLite 3.51.3; lower ones can damage a database with a write-ahead log
)

require (
	github.com/cespare/xxhash/v2 v2.2.0 // indirect
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/dgryski/go-rendezvous v0.0.0-20200823014737-9f7001d12a5f // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/fsnotify/fsnotify v1.10.0 // indirect
	github.com/gofrs/flock v0.13.0 // indirect
	github.com/golang-jwt/jwt/v5 v5.2.2 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.2 // indirect
	github.com/kylelemons/godebug v1.1.0 // indirect
	github.com/mattn/go-isatty v0.0.20 // indirect
	github.com/ncruces/go-strftime v1.0.0 // indirect
	github.com/pkg/browser v0.0.0-20210911075715-681adbf594b8 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	golang.org/x/sync v0.19.0 // indirect
	golang.org/x/sys v0.42.0 // indirect
	golang.org/x/text v0.29.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
	modernc.org/libc v1.70.0 // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.11.0 // indirect
)
