package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/lens"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// With this variable set, the test program is a process of a test: it runs one of
// programs.
const programVariable = "TOKENKEEP_INTEROP_PROGRAM"

// programs are what the test program can be. Each adds n entries to the file, of
// clients named name-0, name-1, …, and reports each: "ok CLIENT MS" or "err CLIENT
// MS TEXT". n is 0 for: without end.
var programs = map[string]func(path, name string, n int, pause time.Duration) error{
	"ours":          addOurs,
	"dotnet":        addLikeDotNet,
	"never deleted": addUnderLastingLock,
	"while locked":  addWhileLocked,
}

func TestMain(m *testing.M) {
	program, ok := programs[os.Getenv(programVariable)]
	if !ok {
		os.Exit(m.Run())
	}
	n, _ := strconv.Atoi(os.Args[3])
	pause, _ := strconv.Atoi(os.Args[4])
	if err := program(os.Args[1], os.Args[2], n, time.Duration(pause)*time.Millisecond); err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// each calls add for each client, and reports.
func each(name string, n int, pause time.Duration, add func(client string) error) error {
	for i := 0; n == 0 || i < n; i++ {
		client, start := fmt.Sprint(name, "-", i), time.Now()
		if err := add(client); err != nil {
			fmt.Println("err", client, time.Since(start).Milliseconds(), err)
		} else {
			fmt.Println("ok", client, time.Since(start).Milliseconds())
		}
		_ = sleep(context.Background(), pause)
	}
	return nil
}

// addOurs is a program that uses this package as its author would.
func addOurs(path, name string, n int, pause time.Duration) error {
	return each(name, n, pause, func(client string) error {
		s, err := File(path, Options{Clients: []string{client}, Write: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		c, err := persistence.New(s)
		if err != nil {
			return err
		}
		return c.Update(context.Background(), func([]byte) ([]byte, error) { return []byte(rt(client, "secret-of-"+client)), nil })
	})
}

// addLikeDotNet is a stand-in for MSAL.NET's MsalCacheHelper on Unix: a FileStream
// with FileShare.None and DeleteOnClose around read, change, and write in place,
// by the source of .NET's SafeFileHandle.Unix.cs. What it cannot parse it deletes.
func addLikeDotNet(path, name string, n int, pause time.Duration) error {
	lockPath := path + ".lockfile"
	lock := func() (*os.File, error) {
		for range 600 {
			f, err := os.OpenFile(lockPath, os.O_CREATE|os.O_RDWR, 0o600)
			if err != nil {
				return nil, err
			}
			if flock(int(f.Fd())) == nil && named(lockPath, int(f.Fd())) {
				fmt.Fprintf(f, "\ufeff%d dotnet\n", os.Getpid())
				return f, nil
			}
			f.Close()
			_ = sleep(context.Background(), 100*time.Millisecond)
		}
		return nil, errors.New("no lock")
	}
	return each(name, n, pause, func(client string) error {
		f, err := lock()
		if err != nil {
			return err
		}
		defer f.Close()
		defer os.Remove(lockPath)
		raw, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		var d map[string]map[string]map[string]any
		if len(raw) > 0 && json.Unmarshal(raw, &d) != nil {
			os.Remove(path)
			return errors.New("deleted")
		}
		if d == nil {
			d = map[string]map[string]map[string]any{}
		}
		if d["RefreshToken"] == nil {
			d["RefreshToken"] = map[string]map[string]any{}
		}
		d["RefreshToken"]["u.t-login.microsoftonline.com-refreshtoken-"+client+"--"] = map[string]any{
			"home_account_id": "u.t", "environment": "login.microsoftonline.com", "client_id": client, "secret": "secret-of-" + client, "credential_type": "RefreshToken"}
		out, err := json.Marshal(d)
		if err != nil {
			return err
		}
		return os.WriteFile(path, out, 0o600)
	})
}

// putAndRename is a save as the wrong programs do it: correct but for the lock and
// the file's time.
func putAndRename(path, client string) error {
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(raw) > 0 && !json.Valid(raw) {
		return errors.New("torn")
	}
	next, err := lens.New([]string{client}, false).Put(raw, []byte(rt(client, "secret-of-"+client)), time.Now())
	if err != nil {
		return err
	}
	f, err := makeFile(path)
	if err != nil {
		return err
	}
	defer f.discard()
	if _, err := f.Write(next); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	name, err := f.link()
	if err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		return err
	}
	f.name = ""
	return nil
}

// addUnderLastingLock locks a lock file that is never deleted, as this project's
// own is not.
func addUnderLastingLock(path, name string, n int, pause time.Duration) error {
	return each(name, n, pause, func(client string) error {
		f, err := os.OpenFile(path+".lockfile", os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			return err
		}
		return putAndRename(path, client)
	})
}

// addWhileLocked holds the other programs' lock around everything.
func addWhileLocked(path, name string, n int, pause time.Duration) error {
	return each(name, n, pause, func(client string) error {
		peer, err := lockPeer(context.Background(), path+".lockfile")
		if err != nil {
			return err
		}
		defer peer.release()
		return putAndRename(path, client)
	})
}

// peer is a process of a test.
type peer struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // closed when the process has ended
	err   said
}

// said is what a process has said so far on standard error.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func startPeer(t testing.TB, cmd *exec.Cmd) *peer {
	t.Helper()
	p := &peer{cmd: cmd, lines: make(chan string, 1<<16)}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	p.in, err = cmd.StdinPipe()
	require.NoError(t, err)
	cmd.Stderr = &p.err
	require.NoError(t, cmd.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return p
}

// program starts one of programs.
func program(t testing.TB, kind, path, name string, n, pause int) *peer {
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, path, name, strconv.Itoa(n), strconv.Itoa(pause))
	cmd.Env = append(os.Environ(), programVariable+"="+kind, "GORACE=atexit_sleep_ms=0")
	return startPeer(t, cmd)
}

const python = "/usr/bin/python3"

// needPython requires Debian's msal-extensions.
func needPython(t testing.TB) {
	t.Helper()
	env.Require(t, exec.Command(python, "-c", "import msal, msal_extensions, portalocker").Run() == nil,
		"MSAL Python's extensions are not installed: apt-get install python3-msal-extensions")
}

func pythonCommand(args ...string) *exec.Cmd {
	return exec.Command(python, append([]string{filepath.Join("testdata", "neighbours", "peer.py")}, args...)...)
}

func pythonAdds(t testing.TB, path, name string, n, pause int) *peer {
	return startPeer(t, pythonCommand("add", path, name, strconv.Itoa(n), strconv.Itoa(pause)))
}

// needNode requires npm's @azure/msal-node-extensions, and returns its folder.
func needNode(t testing.TB) string {
	t.Helper()
	folder := os.Getenv("TOKENKEEP_NODE_EXTENSIONS")
	_, err := os.Stat(filepath.Join(folder, "dist", "lock", "CrossPlatformLock.mjs"))
	env.Require(t, folder != "" && err == nil && exec.Command("node", "--version").Run() == nil,
		"TOKENKEEP_NODE_EXTENSIONS does not name the folder of npm's @azure/msal-node-extensions: see interop/testdata/neighbours/README.md")
	return folder
}

func nodeAdds(t testing.TB, folder, path, name string, n, pause int) *peer {
	cmd := exec.Command("node", filepath.Join("testdata", "neighbours", "peer.mjs"), "add", path, name, strconv.Itoa(n), strconv.Itoa(pause))
	cmd.Env = append(os.Environ(), "NODE_EXT="+folder, "EXTRA_UNLOCK=1")
	return startPeer(t, cmd)
}

// result is what processes reported.
type result struct {
	added   []string      // clients
	errors  []string      // lines
	longest time.Duration // of one add
}

// rest reads what the process reports until it ends.
func (p *peer) rest() (r result) {
	for line := range p.lines {
		r.take(line)
	}
	if text := p.err.String(); text != "" {
		r.errors = append(r.errors, text)
	}
	return r
}

func (r *result) take(line string) {
	words := strings.SplitN(line, " ", 4)
	if len(words) < 3 || words[0] != "ok" {
		r.errors = append(r.errors, line)
	} else {
		r.added = append(r.added, words[1])
	}
	if len(words) > 2 {
		ms, _ := strconv.Atoi(words[2])
		r.longest = max(r.longest, time.Duration(ms)*time.Millisecond)
	}
}

func (r *result) and(other result) {
	r.added = append(r.added, other.added...)
	r.errors = append(r.errors, other.errors...)
	r.longest = max(r.longest, other.longest)
}

func all(peers []*peer) (r result) {
	for _, p := range peers {
		r.and(p.rest())
	}
	return r
}

// missing returns the clients that have no entry in the file. The file must be
// whole.
func missing(t testing.TB, path string, clients []string) (lost []string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	var d struct {
		RefreshToken map[string]struct {
			ClientID string `json:"client_id"`
		}
	}
	require.NoError(t, json.Unmarshal(raw, &d), "%s", raw)
	there := map[string]bool{}
	for _, e := range d.RefreshToken {
		there[e.ClientID] = true
	}
	for _, c := range clients {
		if !there[c] {
			lost = append(lost, c)
		}
	}
	return lost
}

var long = os.Getenv("TOKENKEEP_LONG") == "1"

func times(short, inLongMode int) int {
	if long {
		return inLongMode
	}
	return short
}

const kept = "client-that-stays"

// Processes of ours and of a neighbour each add entries. None is lost, no call of
// either fails, and what is read in between is always whole.
func TestNothingIsLostBeside(t *testing.T) {
	neighbours := map[string]func(t testing.TB) func(path, name string, n, pause int) *peer{
		"Python": func(t testing.TB) func(path, name string, n, pause int) *peer {
			needPython(t)
			return func(path, name string, n, pause int) *peer { return pythonAdds(t, path, name, n, pause) }
		},
		"the stand-in for .NET": func(t testing.TB) func(path, name string, n, pause int) *peer {
			return func(path, name string, n, pause int) *peer { return program(t, "dotnet", path, name, n, pause) }
		},
		"Node": func(t testing.TB) func(path, name string, n, pause int) *peer {
			folder := needNode(t)
			return func(path, name string, n, pause int) *peer { return nodeAdds(t, folder, path, name, n, pause) }
		},
	}
	for kind, need := range neighbours {
		for _, pause := range []int{0, 3} {
			if pause > 0 && !long {
				continue
			}
			t.Run(fmt.Sprintf("%s, pause %d ms", kind, pause), func(t *testing.T) {
				start := need(t)
				path, n := folder(t), times(8, 25)
				writeFile(t, path, rt(kept, "x"))
				theirNumber := 4
				if kind == "Node" {
					theirNumber = 1 // two of them lose entries of each other
				}
				var ours, theirs []*peer
				for i := range 4 {
					ours = append(ours, program(t, "ours", path, fmt.Sprint("o", i), n, pause))
				}
				for i := range theirNumber {
					theirs = append(theirs, start(path, fmt.Sprint("t", i), n, pause))
				}
				end := make(chan struct{})
				read := make(chan string)
				go func() {
					n, bad := 0, ""
					s, err := File(path, Options{Clients: []string{kept}})
					for ; err == nil && bad == ""; n++ {
						select {
						case <-end:
							t.Logf("%d reads of ours", n)
							read <- ""
							return
						default:
						}
						if _, err := s.Load(context.Background()); err != nil {
							bad = err.Error()
						}
					}
					read <- fmt.Sprint(err, bad)
				}()
				o, th := all(ours), all(theirs)
				close(end)
				require.Empty(t, <-read, "a read of ours failed")
				t.Logf("longest wait: ours %v, theirs %v", o.longest, th.longest)
				require.Empty(t, o.errors)
				require.Empty(t, th.errors)
				require.Len(t, o.added, 4*n)
				require.Len(t, th.added, theirNumber*n)
				require.Empty(t, missing(t, path, append(append(o.added, th.added...), kept)))
				require.Equal(t, []string{"cache.json"}, names(t, filepath.Dir(path)))
			})
		}
	}
}

// A lock file that is never deleted loses entries, or makes MSAL Python fail: the
// test above would notice.
func TestLastingLockIsCaught(t *testing.T) {
	needPython(t)
	path := folder(t)
	writeFile(t, path, rt(kept, "x"))
	var ours, theirs []*peer
	for i := range 2 {
		ours = append(ours, program(t, "never deleted", path, fmt.Sprint("o", i), 40, 0))
		theirs = append(theirs, pythonAdds(t, path, fmt.Sprint("t", i), 2, 0))
	}
	o, th := all(ours), all(theirs)
	lost := missing(t, path, append(o.added, th.added...))
	t.Logf("lost %d, Python's errors %d, its longest wait %v", len(lost), len(th.errors), th.longest)
	require.True(t, len(lost) > 0 || len(th.errors) > 0 || th.longest >= 4*time.Second, "neither lost nor slow: the test proves nothing")
}

// Processes of ours are killed at any moment, beside processes of MSAL Python.
// Nothing that was acknowledged is lost, no temporary file is left, and a lock file
// that is left is cleared by the next save of ours at once.
func TestKillsOfOurs(t *testing.T) {
	needPython(t)
	left := killed(t, "ours", times(9, 200))
	t.Logf("a lock file was left after %d kills", left)
}

// killed kills that many processes, and returns how often a lock file was left.
func killed(t *testing.T, kind string, kills int) (lockLeft int) {
	path := folder(t)
	writeFile(t, path, rt(kept, "x"))
	var theirs []*peer
	for i := range 2 {
		theirs = append(theirs, pythonAdds(t, path, fmt.Sprint("t", i), times(20, 250), 10))
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	var acknowledged result
	var group sync.WaitGroup
	var mu sync.Mutex
	for i := range 3 {
		delays := make([]int, kills/3+1)
		for k := range delays {
			delays[k] = rnd.IntN(4)
		}
		group.Go(func() {
			for k, after := range delays {
				p := program(t, kind, path, fmt.Sprint("o", i, "k", k), 0, 0)
				var r result
				for line := range p.lines {
					if r.take(line); len(r.added) > after {
						break
					}
				}
				// Somewhere in the add that is under way.
				_ = sleep(context.Background(), time.Duration(delays[(k+1)%len(delays)])*time.Millisecond)
				_ = p.cmd.Process.Kill()
				r.and(p.rest())
				mu.Lock()
				acknowledged.and(r)
				if owner, ok := lockOwner(path); ok && owner == p.cmd.Process.Pid {
					lockLeft++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	th := all(theirs)
	t.Logf("seed %d; acknowledged %d; Python's longest wait %v", seed, len(acknowledged.added), th.longest)
	require.Empty(t, acknowledged.errors)
	require.Empty(t, th.errors)
	require.Empty(t, missing(t, path, append(append(acknowledged.added, th.added...), kept)))
	require.NoError(t, writable(t, path).Save(t.Context(), []byte(rt(client, "last"))))
	require.Equal(t, []string{"cache.json"}, names(t, filepath.Dir(path)))
	return lockLeft
}

func lockOwner(path string) (pid int, ok bool) {
	f, err := os.Open(path + ".lockfile")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	pid, _ = owner(int(f.Fd()))
	return pid, pid != 0
}

// ask writes a line to the process and returns its answer.
func (p *peer) ask(t testing.TB, line string) string {
	t.Helper()
	_, err := io.WriteString(p.in, line+"\n")
	require.NoError(t, err)
	answer, ok := <-p.lines
	require.True(t, ok, "the process has ended: %s", p.err.String())
	return answer
}

// MSAL Python sees each write of ours at once, and does not overwrite it with what
// it read before, also where the two writes are in one tick of the kernel's clock.
func TestPythonSeesEachWrite(t *testing.T) {
	needPython(t)
	none := func(int, int) bool { return false }
	unseen, overwritten := turns(t, times(40, 1000), func(path, client string) error {
		return writable(t, path, client).Save(t.Context(), []byte(rt(client, "x")))
	}, none)
	require.Zero(t, unseen, "not seen")
	require.Zero(t, overwritten, "overwritten")

	// The kernel stamps a file with the time of its last tick, up to 10 ms ago. How
	// often that is too old depends on the machine, so the control lags by as much.
	t.Run("control: the time of the last tick", func(t *testing.T) {
		unseen, overwritten := turns(t, 400, func(path, client string) error {
			tick := time.Now().Add(-10 * time.Millisecond)
			return errors.Join(putAndRename(path, client), os.Chtimes(path, tick, tick))
		}, func(unseen, overwritten int) bool { return unseen > 0 && overwritten > 0 })
		require.NotZero(t, unseen)
		require.NotZero(t, overwritten)
	})
}

// turns lets a process of MSAL Python and write add entries in turns, until enough
// says that it was seen or n turns are over. Another process of MSAL Python looks
// for each of write's. Each writes right after one of the two has used the file.
func turns(t *testing.T, n int, write func(path, client string) error, enough func(unseen, overwritten int) bool) (unseen, overwritten int) {
	path := folder(t)
	writer := startPeer(t, pythonCommand("turns", path))
	looker := startPeer(t, pythonCommand("sees", path))
	require.Equal(t, "ready", <-writer.lines)
	require.Equal(t, "ready", <-looker.lines)
	for i := range n {
		client := fmt.Sprint("go-", i)
		if i%2 == 0 {
			require.Equal(t, "ok", writer.ask(t, fmt.Sprint("python-", i)))
			require.NoError(t, write(path, client))
			require.Equal(t, "ok", writer.ask(t, fmt.Sprint("python-again-", i)))
			overwritten += len(missing(t, path, []string{client}))
		} else {
			looker.ask(t, client)
			require.NoError(t, write(path, client))
			if looker.ask(t, client) != "1" {
				unseen++
			}
		}
		if enough(unseen, overwritten) {
			break
		}
	}
	return unseen, overwritten
}

// What was prepared and flushed before the lock was taken needs no flush under it,
// so the lock is held for as long as a rename takes. strace tells.
func TestLockIsHeldForNoFlush(t *testing.T) {
	env.Require(t, exec.Command("strace", "-V").Run() == nil, "strace is not installed: apt-get install strace")
	flushes := func(kind string) int {
		path := folder(t)
		writeFile(t, path, rt(kept, "x"))
		trace := filepath.Join(t.TempDir(), "trace")
		exe, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.Command("strace", "-f", "-qq", "-o", trace, "-e", "trace=fsync,fdatasync,linkat,unlinkat,unlink", exe, path, "o", "1", "0")
		cmd.Env = append(os.Environ(), programVariable+"="+kind, "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		text, err := os.ReadFile(trace)
		require.NoError(t, err)
		n, held, was := 0, false, false
		for line := range strings.Lines(string(text)) {
			lock := strings.Contains(line, `cache.json.lockfile"`)
			switch {
			case lock && strings.Contains(line, "linkat(") && !strings.Contains(line, "unlinkat("):
				held, was = true, true
			case lock && strings.Contains(line, "unlink"):
				held = false
			case held && strings.Contains(line, "sync("):
				n++
			}
		}
		require.True(t, was, "no lock was taken: %s", text)
		return n
	}
	require.Zero(t, flushes("ours"))
	require.NotZero(t, flushes("while locked"), "control: a program that does everything under the lock")
}

// What a process of MSAL Python leaves that is killed between emptying the file and
// writing it is put right by a process of ours that has read the file before. One
// that has not cannot help.
func TestKilledPythonIsPutRight(t *testing.T) {
	needPython(t)
	env.Require(t, exec.Command("strace", "-V").Run() == nil, "strace is not installed: apt-get install strace")
	path := folder(t)
	wipe := func() {
		writeFile(t, path, rt(kept, "x"))
		args := append([]string{"-f", "-qq", "-o", os.DevNull, "-P", path, "-e", "trace=write", "-e", "inject=write:signal=KILL", python}, pythonCommand("add", path, "t", "1", "0").Args[1:]...)
		err := exec.Command("strace", args...).Run()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "it was not killed")
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Empty(t, raw)
		require.FileExists(t, path+".lockfile")
		settle(t, path)
	}
	writeFile(t, path, rt(kept, "x"))
	lives := writable(t, path)
	_, err := lives.Revision(t.Context())
	require.NoError(t, err)
	wipe()
	require.NoError(t, lives.Save(t.Context(), []byte(rt(client, "mine"))))
	require.Empty(t, missing(t, path, []string{kept, client}))
	require.Equal(t, []string{"cache.json"}, names(t, filepath.Dir(path)))
	r := pythonAdds(t, path, "after", 1, 0).rest()
	require.Empty(t, r.errors, "MSAL Python works again")

	wipe()
	require.NoError(t, writable(t, path).Save(t.Context(), []byte(rt(client, "mine"))))
	require.Equal(t, []string{kept}, missing(t, path, []string{kept, client}), "control: without memory there is nothing to put right from")
}
