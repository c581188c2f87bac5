//go:build linux

package servers

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// StartPgBouncer starts a PgBouncer in transaction mode in front of p, with a pool
// of a few connections, and returns its address.
func (p *Postgres) StartPgBouncer(t testing.TB) (addr string) {
	t.Helper()
	program := need(t, "pgbouncer", "pgbouncer", "/usr/sbin/pgbouncer")
	addr = address(16432)
	host, port, _ := net.SplitHostPort(addr)
	serverHost, serverPort, _ := net.SplitHostPort(p.Addr)
	dir := folder(t)
	file := filepath.Join(dir, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `[databases]
* = host=%s port=%s user=test
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
`, serverHost, serverPort, host, port), 0o644))
	start(t, "process up", unprivileged(t, dir, "postgres"), program, file)
	return addr
}
