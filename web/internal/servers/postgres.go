//go:build linux

package servers

import (
	"database/sql"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"
)

// Postgres is a PostgreSQL server.
type Postgres struct {
	Addr string
	proc *process
	t    testing.TB
	uid  int
	bin  string
	args []string
}

// StartPostgres starts a PostgreSQL with the settings: "fsync=off" and so on.
// Its superuser is "test" and needs no password.
func StartPostgres(t testing.TB, settings ...string) *Postgres {
	t.Helper()
	bin := filepath.Dir(need(t, "initdb", "postgresql", "/usr/lib/postgresql/*/bin/initdb"))
	p := &Postgres{Addr: address(15432), t: t, bin: bin}
	dir := folder(t)
	p.uid = unprivileged(t, dir, "postgres")
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "test", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
	if initdb.Dir = "/"; p.uid != 0 {
		initdb.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(p.uid), Gid: uint32(p.uid)}}
	}
	out, err := initdb.CombinedOutput()
	require.NoError(t, err, "%s", out)
	host, port, _ := net.SplitHostPort(p.Addr)
	// Shared memory that a killed server leaves behind goes with its folder.
	p.args = []string{"-D", data, "-k", dir, "-c", "listen_addresses=" + host, "-p", port, "-c", "dynamic_shared_memory_type=mmap"}
	for _, s := range settings {
		p.args = append(p.args, "-c", s)
	}
	p.Start()
	return p
}

// Start starts the server again after Kill, with the same data and address.
func (p *Postgres) Start() {
	p.t.Helper()
	p.proc = start(p.t, "database system is ready to accept connections", p.uid, filepath.Join(p.bin, "postgres"), p.args...)
	p.t.Cleanup(p.proc.quit)
}

// Kill ends the server and its children with SIGKILL.
func (p *Postgres) Kill() { p.proc.kill() }

// Pause makes the server hang: it accepts connections, and then nothing. The
// connections that there are already go on.
func (p *Postgres) Pause() (resume func()) { return p.proc.pause(p.t) }

// URL returns the data source name of a database, with parameters such as
// "default_transaction_read_only=on".
func (p *Postgres) URL(database string, parameters ...string) string {
	url := fmt.Sprintf("postgres://test@%s/%s?sslmode=disable", p.Addr, database)
	for _, q := range parameters {
		url += "&" + q
	}
	return url
}

// DB opens a database, with parameters as for URL.
func (p *Postgres) DB(database string, parameters ...string) *sql.DB {
	p.t.Helper()
	return OpenPostgres(p.t, p.URL(database, parameters...))
}

// NewDatabase makes an empty database, for t alone, and returns its name.
func (p *Postgres) NewDatabase(t testing.TB) string {
	t.Helper()
	name := "d" + strconv.FormatInt(databases.Add(1), 10)
	_, err := OpenPostgres(t, p.URL("postgres")).ExecContext(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	return name
}

// OpenPostgres opens the database at url until the end of the test.
func OpenPostgres(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { db.Close() })
	return db
}
