//go:build linux

package servers

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/web/internal/env"
)

// address returns a loopback address with that port. There are millions of
// them, so neither another server nor another test has it.
func address(port int) string {
	return fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250), port)
}

// need returns the path of an installed program. Without it the test is skipped,
// or fails where everything must be installed.
func need(t testing.TB, program, debianPackage string, otherwise ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	for _, pattern := range otherwise {
		if found, _ := filepath.Glob(pattern); err != nil && len(found) > 0 {
			path, err = found[len(found)-1], nil
		}
	}
	env.Require(t, err == nil, program+" is not installed (Debian: apt-get install "+debianPackage+")")
	return path
}

// folder returns a temporary folder that any user may enter, whose path is
// short enough for sockets.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "srv")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// process is a server that runs, or did.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// start starts a server and waits until it says ready, in a line of its output.
// It ends with the test.
func start(t testing.TB, ready string, uid int, program string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	cmd.Dir = "/"
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = w, w
	require.NoError(t, cmd.Start())
	w.Close()
	p := &process{cmd, make(chan struct{})}
	var said strings.Builder
	isReady := make(chan bool, 1)
	go func() {
		defer close(p.done)
		defer r.Close()
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if said.WriteString(lines.Text() + "\n"); strings.Contains(lines.Text(), ready) {
				isReady <- true
				break
			}
		}
		close(isReady)
		io.Copy(io.Discard, r)
		cmd.Wait()
	}()
	t.Cleanup(p.kill)
	if !<-isReady {
		<-p.done
		t.Fatalf("%s ended before it was ready:\n%s", program, said.String())
	}
	return p
}

// kill ends the server as a power cut does its process, and waits for its end.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// quit ends a server that cleans up after itself at once when it is told to.
func (p *process) quit() {
	p.cmd.Process.Signal(syscall.SIGQUIT)
	<-p.done
}

// pause makes the server hang, until resume or the end of the test: its kernel
// accepts connections, and nothing answers.
func (p *process) pause(t testing.TB) (resume func()) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	resume = sync.OnceFunc(func() { p.cmd.Process.Signal(syscall.SIGCONT) })
	t.Cleanup(resume)
	return resume
}

// Proxy stands between a client and a server.
type Proxy struct {
	Addr string

	mu    sync.Mutex
	conns map[net.Conn]bool
	lose  int
}

// StartProxy starts a proxy to target.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &Proxy{Addr: l.Addr().String(), conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		l.Close()
		p.Cut()
	})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			p.mu.Lock()
			p.conns[client], p.conns[server] = true, true
			p.mu.Unlock()
			go p.forward(server, client, false)
			go p.forward(client, server, true)
		}
	}()
	return p
}

func (p *Proxy) forward(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		lost := answers && p.lose > 0
		if lost {
			p.lose--
		}
		p.mu.Unlock()
		if lost {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// LoseAnswers loses the next n answers that the server gives, each with its
// connection.
func (p *Proxy) LoseAnswers(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = n
}

// Cut ends all connections that there are now.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
		delete(p.conns, c)
	}
}
