// Signin is a web app that signs users in with MSAL Go's confidential client,
// the authorization code flow and PKCE, and calls an API for them. Sign-ins
// survive a restart, and any number of servers can share them.
//
//	go run ./examples/signin
//	go run ./examples/signin -redis localhost:6379
//	go run ./examples/signin -postgres postgres://app@localhost/app
//	SIGNIN_CLIENT_SECRET=… go run ./examples/signin -client-id ID -tenant TENANT
//
// in the folder web. Without -client-id it runs against a pretend authority and
// a pretend API that it brings along (demo.go), so it needs no account and no
// network. With it, register http://localhost:8080/signed-in as a redirect URI
// of the type Web.
//
// Tokens and sessions are sealed before they are stored, with a key in a file.
// Several servers need one file, or better a secret manager.
package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/redis/go-redis/v9"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/discovery"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
	"github.com/tokenkeep/tokenkeep/web/sealed"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
	"github.com/tokenkeep/tokenkeep/web/sqlstore/sqlite"
)

var (
	addr      = flag.String("addr", "localhost:8080", "`address` to listen on")
	publicURL = flag.String("url", "", "`URL` at which browsers reach this server; by default http:// and the address")
	clientID  = flag.String("client-id", "", "application `id` of your app in Microsoft Entra ID; empty runs the demo")
	tenant    = flag.String("tenant", "organizations", "your tenant's `id` or domain name")
	secretEnv = flag.String("client-secret-env", "SIGNIN_CLIENT_SECRET", "environment `variable` with the app's client secret")
	scope     = flag.String("scope", "User.Read", "the `permission` to ask for")
	apiURL    = flag.String("api", "https://graph.microsoft.com/v1.0/me", "`URL` of the API to call")
	dir       = flag.String("dir", "", "`folder` for the key and for SQLite's file; by default one in the user's cache folder")
	redisAddr = flag.String("redis", "", "`address` of a Redis to keep accounts in, instead of SQLite")
	postgres  = flag.String("postgres", "", "`URL` of a PostgreSQL to keep accounts in, instead of SQLite; a password belongs into PGPASSWORD")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "signin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if *dir == "" {
		caches, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		*dir = filepath.Join(caches, "tokenkeep-signin")
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	keys, err := keysIn(filepath.Join(*dir, "signin.key"))
	if err != nil {
		return err
	}
	s, err := openStore(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	defer listener.Close()

	base := strings.TrimSuffix(*publicURL, "/")
	if base == "" {
		host, _, _ := net.SplitHostPort(*addr)
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		base = "http://" + net.JoinHostPort(host, port)
	}
	accounts, err := persistence.NewPartitioned(func(_ context.Context, account string) (persistence.Persistence, error) {
		return keys.Account(account, s.accounts(account)), nil
	}, persistence.WithTimeout(storeTimeout))
	if err != nil {
		return err
	}
	a := &app{
		url: base, store: s.name, accounts: accounts,
		sessions:  newSessions(strings.HasPrefix(base, "https:"), func(key string) persistence.Versioned { return keys.Account("session "+key, s.sessions(key)) }),
		clientID:  *clientID,
		authority: "https://login.microsoftonline.com/" + *tenant,
		scopes:    []string{*scope},
		http:      &http.Client{Transport: discovery.NewTransport(nil), Timeout: 30 * time.Second},
		api:       *apiURL,
	}
	mux := http.NewServeMux()
	secret := os.Getenv(*secretEnv)
	if *clientID == "" {
		end, err := demo(mux, a, &secret)
		if err != nil {
			return err
		}
		defer end()
	}
	if a.credential, err = confidential.NewCredFromSecret(secret); err != nil {
		return fmt.Errorf("the client secret, from the variable %s: %w", *secretEnv, err)
	}
	a.routes(mux)

	go flushing(ctx, accounts)
	server := newServer(mux)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	fmt.Printf("Open %s in a browser. Accounts are kept in %s.\n", base, s.name)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = server.Shutdown(last)
	if left, flushErr := accounts.Flush(last); left > 0 {
		slog.Error("tokens could not be stored and are lost", "accounts", left, "error", flushErr)
	}
	return err
}

// flushing stores every few seconds what the store could not take before, until
// ctx ends. The log says why it could not.
func flushing(ctx context.Context, accounts *persistence.Partitioned) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			accounts.Flush(ctx) //nolint:errcheck // it is tried again
		case <-ctx.Done():
			return
		}
	}
}

// storeTimeout bounds every call of the store. The library's default of 30
// seconds is for a person who unlocks a keyring; here a store that hangs would hold
// every request for that long.
const storeTimeout = 2 * time.Second

// newServer returns a server that waits for no client for ever.
func newServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute, // the authority and the API have to answer in that time as well
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}

// keysIn reads the key in a file, or makes one.
func keysIn(path string) (*sealed.Keys, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret := make([]byte, 32)
		rand.Read(secret) //nolint:errcheck // never fails
		text = []byte(base64.StdEncoding.EncodeToString(secret))
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			_, err = f.Write(text)
			err = errors.Join(err, f.Sync(), f.Close())
		}
	}
	if err != nil {
		return nil, err
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s is not a key", path)
	}
	return sealed.New(sealed.NewKey("1", secret))
}

// store is where accounts and sessions are kept.
type store struct {
	name               string // for a person
	accounts, sessions func(key string) persistence.Versioned
	close              func()
}

const maxConnections = 16

func openStore(ctx context.Context) (store, error) {
	if *redisAddr != "" {
		client := redis.NewClient(&redis.Options{Addr: *redisAddr, ContextTimeoutEnabled: true})
		accounts, err := redisstore.New(client, &redisstore.Options{Prefix: "signin:account:"})
		if err != nil {
			return store{}, err
		}
		sessions, err := redisstore.New(client, &redisstore.Options{Prefix: "signin:session:", TTL: sessionLifetime})
		if err != nil {
			return store{}, err
		}
		warnings, err := accounts.Check(ctx)
		if err != nil {
			return store{}, err
		}
		for _, w := range warnings {
			slog.Warn(w)
		}
		return store{"Redis", accounts.Account, sessions.Account, func() { client.Close() }}, nil
	}
	var db *sql.DB
	var err error
	dialect, name := sqlstore.SQLite, "SQLite"
	if *postgres != "" {
		dialect, name = sqlstore.PostgreSQL, "PostgreSQL"
		if db, err = sql.Open("pgx", *postgres); err == nil {
			// Without these, each request that finds two connections busy opens one
			// more, and closes it again: several times slower under load, until the
			// server has too many. Keep the sum over all servers below its
			// max_connections.
			db.SetMaxOpenConns(maxConnections)
			db.SetMaxIdleConns(maxConnections)
			db.SetConnMaxLifetime(30 * time.Minute) // follows a failover, and a load balancer
		}
	} else {
		db, err = sqlite.Open(filepath.Join(*dir, "signin.db"))
	}
	if err != nil {
		return store{}, err
	}
	var tables []*sqlstore.Store
	for _, o := range []sqlstore.Options{{Table: "signin_accounts"}, {Table: "signin_sessions", TTL: sessionLifetime}} {
		t, err := sqlstore.New(db, dialect, &o)
		if err == nil {
			err = t.Migrate(ctx)
		}
		if err != nil {
			return store{}, errors.Join(err, db.Close())
		}
		tables = append(tables, t)
	}
	sweeping, end := context.WithCancel(ctx)
	go sweep(sweeping, tables)
	return store{name, tables[0].Account, tables[1].Account, func() { end(); db.Close() }}, nil
}

// sweep removes expired rows every minute, until ctx ends.
func sweep(ctx context.Context, tables []*sqlstore.Store) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		for _, t := range tables {
			if err := sweepTable(ctx, t.DeleteExpired); err != nil && ctx.Err() == nil {
				slog.Warn("cannot remove expired rows", "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweepTable removes a table's expired rows, some at a time so that no statement
// holds locks for long, until none is left.
func sweepTable(ctx context.Context, deleteExpired func(ctx context.Context, limit int) (int, error)) error {
	const some = 1000
	for {
		n, err := deleteExpired(ctx, some)
		if err != nil || n < some {
			return err
		}
	}
}
