//go:build linux

package servers

import (
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	_ "github.com/go-sql-driver/mysql" // the driver "mysql"
	"github.com/stretchr/testify/require"
)

// MariaDB is a MariaDB server.
type MariaDB struct{ Addr string }

// StartMariaDB starts a MariaDB. Its user "test" needs no password.
func StartMariaDB(t testing.TB) *MariaDB {
	t.Helper()
	server := need(t, "mariadbd", "mariadb-server", "/usr/sbin/mariadbd")
	install := need(t, "mariadb-install-db", "mariadb-server")
	addr := address(13306)
	host, port, _ := net.SplitHostPort(addr)
	dir := folder(t)
	uid := unprivileged(t, dir, "mysql")
	as := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.Dir = "/"
		if uid != 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		}
		return cmd
	}
	data := filepath.Join(dir, "data")
	out, err := as(exec.Command(install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	script := filepath.Join(dir, "init.sql")
	require.NoError(t, os.WriteFile(script, []byte("CREATE USER test@'%';\nGRANT ALL ON *.* TO test@'%';\n"), 0o644))
	start(t, "ready for connections", uid, server, "--no-defaults", "--datadir="+data, "--socket="+filepath.Join(dir, "s"),
		"--pid-file="+filepath.Join(dir, "pid"), "--bind-address="+host, "--port="+port, "--init-file="+script, "--skip-name-resolve")
	return &MariaDB{Addr: addr}
}

// unprivileged gives dir to a user that is not root, and returns its number; 0
// where this process is not root's. Debian's user of that name is taken if it is
// there. Servers of databases refuse to run as root.
func unprivileged(t testing.TB, dir, name string) int {
	t.Helper()
	if os.Getuid() != 0 {
		return 0
	}
	uid := 65534
	if u, err := user.Lookup(name); err == nil {
		uid, _ = strconv.Atoi(u.Uid)
	}
	require.NoError(t, os.Chown(dir, uid, uid))
	return uid
}

// NewDatabase makes an empty database, for t alone, and returns its data source
// name.
func (m *MariaDB) NewDatabase(t testing.TB, parameters string) string {
	t.Helper()
	name := "d" + strconv.FormatInt(databases.Add(1), 10)
	db := OpenMySQL(t, fmt.Sprintf("test@tcp(%s)/", m.Addr))
	_, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	return fmt.Sprintf("test@tcp(%s)/%s?%s", m.Addr, name, parameters)
}

// OpenMySQL opens a database until the end of the test.
func OpenMySQL(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { db.Close() })
	return db
}
