package tokensource

// Real processes that share one encrypted file, against a provider that revokes
// a sign-in when a refresh token is used twice.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/test/oauthserver"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// With this variable set, the test program is a process of a test.
const programVariable = "TOKENKEEP_TOKENSOURCE_PROGRAM"

var long = os.Getenv("TOKENKEEP_LONG") == "1"

func TestMain(m *testing.M) {
	if kind := os.Getenv(programVariable); kind != "" {
		if err := program(kind, os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func sharedCache(path string) (*persistence.Cache, error) {
	f, err := encrypted.New(path, encrypted.Raw(bytes.Repeat([]byte{7}, 32)), nil)
	if err != nil {
		return nil, err
	}
	return persistence.New(f)
}

// A period is the time from one expiry to the next. The processes and the
// provider agree on which one it is: nobody waits for a token to expire.
const period = 2 * time.Hour

// program is a process: for each line with the number of a period it asks for a
// token and reports what it got.
func program(kind, serverURL, path, seed string) error {
	c, err := sharedCache(path)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	var clock clock
	var source interface{ Token() (*oauth2.Token, error) }
	conf := oauthserver.Config(serverURL)
	switch kind {
	case "no lock":
		source = &model{flaw: noLock, cache: c, conf: conf, now: clock.now}
	case "source", "doomed", "mortal":
		var r Refresher = conf
		if kind != "source" {
			r = &mortal{conf, rand.New(rand.NewPCG(n, 0)), kind == "doomed"}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		s, err := New(ctx, c, key, r)
		if err != nil {
			return err
		}
		s.now = clock.now
		source = s
	default:
		return errors.New("no such program")
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			return err
		}
		clock.ahead.Store(int64(n) * int64(period))
		token, err := source.Token()
		switch {
		case err == nil:
			fmt.Println("token", token.AccessToken)
		case errors.Is(err, ErrSignInRequired):
			fmt.Println("sign in")
		case errors.Is(err, ErrTemporary):
			fmt.Println("try again")
		default:
			return err
		}
	}
	return in.Err()
}

// mortal kills its process at random, before an exchange or after it.
type mortal struct {
	*oauth2.Config
	random *rand.Rand
	doomed bool // the first exchange kills it
}

func (m *mortal) TokenSource(ctx context.Context, t *oauth2.Token) oauth2.TokenSource {
	return tokenFunc(func() (*oauth2.Token, error) {
		when := m.random.IntN(4)
		if m.doomed {
			when = 1
		}
		if when == 0 {
			die("killed before")
		}
		t, err := m.Config.TokenSource(ctx, t).Token()
		if when == 1 && err == nil {
			die("killed between")
		}
		return t, err
	})
}

type tokenFunc func() (*oauth2.Token, error)

func (f tokenFunc) Token() (*oauth2.Token, error) { return f() }

func die(report string) {
	fmt.Println(report)
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {}
}

// process is a process of a test.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	errors bytes.Buffer
}

// proof is a provider and processes that share a file.
type proof struct {
	t         *testing.T
	server    *oauthserver.Server
	path      string
	kind      string
	processes []*process
	random    *rand.Rand
	signIns   int // after the first
}

func newProof(t *testing.T, kind string, n int, o oauthserver.Options) *proof {
	t.Helper()
	server, err := oauthserver.Start(o)
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	p := &proof{t: t, server: server, path: filepath.Join(t.TempDir(), "cache"), kind: kind, random: rand.New(rand.NewPCG(seed, 0))}
	p.signIn(-1)
	p.signIns = 0
	for range n {
		p.processes = append(p.processes, p.start())
	}
	return p
}

// signIn stores a new sign-in of a period.
func (p *proof) signIn(now int) {
	p.t.Helper()
	p.signIns++
	c, err := sharedCache(p.path)
	require.NoError(p.t, err)
	s, err := New(p.t.Context(), c, key, p.server.Config())
	require.NoError(p.t, err)
	s.now = func() time.Time { return time.Now().Add(time.Duration(now) * period) }
	token, err := p.server.SignIn("alice")
	require.NoError(p.t, err)
	token.Expiry = s.now().Add(period / 2)
	require.NoError(p.t, s.Save(p.t.Context(), token))
}

func (p *proof) start() *process {
	p.t.Helper()
	exe, err := os.Executable()
	require.NoError(p.t, err)
	c := &process{cmd: exec.Command(exe, p.server.URL, p.path, strconv.FormatUint(p.random.Uint64(), 10))}
	c.cmd.Env = append(os.Environ(), programVariable+"="+p.kind, "GORACE=atexit_sleep_ms=0")
	c.cmd.Stderr = &c.errors
	c.in, err = c.cmd.StdinPipe()
	require.NoError(p.t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(p.t, err)
	c.out = bufio.NewScanner(out)
	require.NoError(p.t, c.cmd.Start())
	p.t.Cleanup(func() {
		c.in.Close()
		c.cmd.Process.Kill()
		c.cmd.Wait()
	})
	return c
}

// enter begins a period: the tokens of the one before are expired.
func (p *proof) enter(now int) {
	p.server.SetLifetime(time.Duration(now)*period + period/2)
}

// tell lets a process ask for a token.
func (c *process) tell(now int) error {
	_, err := fmt.Fprintln(c.in, now)
	return err
}

// report returns what a process reports; "" if it has ended.
func (c *process) report() string {
	if c.out.Scan() {
		return c.out.Text()
	}
	return ""
}

// all lets all processes ask at once, and returns what they report.
func (p *proof) all(now int) []string {
	p.t.Helper()
	for _, c := range p.processes {
		require.NoError(p.t, c.tell(now))
	}
	var reports []string
	for _, c := range p.processes {
		r := c.report()
		if r == "" {
			c.cmd.Wait()
			p.t.Fatalf("a process has ended: %s", c.errors.String())
		}
		reports = append(reports, r)
	}
	return reports
}

// oneToken is an error unless all reported the same token.
func oneToken(reports []string) error {
	for _, r := range reports {
		if !strings.HasPrefix(r, "token ") || r != reports[0] {
			return fmt.Errorf("reported: %q", reports)
		}
	}
	return nil
}

// run lets n processes live through some expiries, each with one request.
func (p *proof) run(expiries int) error {
	for now := range expiries {
		p.enter(now)
		err := errors.Join(oneToken(p.all(now)), check(p.server.Refreshes() == now+1 && p.server.Reuses() == 0 && p.server.SignOuts() == 0,
			"%d requests, %d reuses, %d sign-outs", p.server.Refreshes(), p.server.Reuses(), p.server.SignOuts()))
		if err != nil {
			return fmt.Errorf("expiry %d: %w", now+1, err)
		}
	}
	return nil
}

func size() (processes, expiries int) {
	if long {
		return 8, 50
	}
	return 8, 10
}

func TestProcesses(t *testing.T) {
	n, expiries := size()
	t.Run("a provider that rotates", func(t *testing.T) {
		require.NoError(t, newProof(t, "source", n, oauthserver.Options{}).run(expiries))
	})
	t.Run("a provider that leaves the refresh token out", func(t *testing.T) {
		require.NoError(t, newProof(t, "source", n, oauthserver.Options{NoRotation: true}).run(expiries))
	})
	t.Run("control: no lock", func(t *testing.T) {
		p := newProof(t, "no lock", n, oauthserver.Options{})
		p.server.Gather(n)
		require.Error(t, p.run(expiries))
		require.Positive(t, p.server.Reuses())
		require.Equal(t, 1, p.server.SignOuts())
	})
}

// Whatever the provider does but revoke, there is one good answer for each expiry,
// and nobody signs in again.
func TestProcessesTrouble(t *testing.T) {
	n, expiries := size()
	p := newProof(t, "source", n, oauthserver.Options{})
	troubles := []oauthserver.Failure{
		{Status: 0}, {Status: 429, Code: "slow_down"}, {Status: 503, Body: "<p>down</p>"}, {Status: 500, Code: "server_error"}, {Status: 200, Body: "<p>hotel</p>"},
	}
	want := 0
	for now := range expiries {
		p.enter(now)
		fails := 0
		for range p.random.IntN(3) {
			times := p.random.IntN(n + 1)
			p.server.Fail(times, troubles[p.random.IntN(len(troubles))])
			fails += times
		}
		want += fails + 1
		var slow *oauthserver.Hold
		if fails == 0 {
			slow = p.server.Hold() // until all have asked
			for _, c := range p.processes {
				require.NoError(t, c.tell(now))
			}
			<-slow.Arrived()
			slow.Release()
		}
		for {
			var reports []string
			if slow != nil {
				for _, c := range p.processes {
					reports = append(reports, c.report())
				}
				slow = nil
			} else {
				reports = p.all(now)
			}
			for _, r := range reports {
				require.True(t, r == "try again" || strings.HasPrefix(r, "token "), "%q", reports)
			}
			if oneToken(reports) == nil {
				break
			}
		}
		require.Equal(t, want, p.server.Refreshes())
		require.Zero(t, p.server.Reuses())
		require.Zero(t, p.server.SignOuts())
	}
}

// A kill before the exchange costs nothing. One between the exchange and the save
// costs at most one sign-in, and with a provider that does not revoke, none.
func TestProcessesKilled(t *testing.T) {
	n, expiries := size()
	for _, noRevocation := range []bool{false, true} {
		t.Run(fmt.Sprintf("no revocation %t", noRevocation), func(t *testing.T) {
			p := newProof(t, "doomed", n, oauthserver.Options{NoRevocation: noRevocation})
			before, between, anywhere := 0, 0, 0
			for now := range expiries {
				p.enter(now)
				done := make([]bool, n)
				for left := n; left > 0; {
					victim := -1
					if p.random.IntN(3) == 0 {
						victim = p.random.IntN(n)
					}
					for i, c := range p.processes {
						if !done[i] {
							require.NoError(t, c.tell(now))
						}
					}
					if victim >= 0 && !done[victim] {
						p.processes[victim].cmd.Process.Kill() // wherever it is
					} else {
						victim = -1
					}
					signedOut := false
					for i, c := range p.processes {
						if done[i] {
							continue
						}
						r := c.report()
						killed := false
						switch {
						case strings.HasPrefix(r, "token "):
							done[i] = true
							left--
							killed = i == victim // it was faster
						case r == "killed before":
							before++
							killed = true
						case r == "killed between":
							between++
							killed = true
						case r == "sign in":
							signedOut = true
							killed = i == victim
						case r == "" && i == victim:
							killed = true
						default:
							c.cmd.Wait()
							t.Fatalf("%q: %s", r, c.errors.String())
						}
						if i == victim {
							anywhere++
						}
						if killed {
							c.cmd.Wait()
							require.Empty(t, c.errors.String())
							p.kind = "mortal"
							p.processes[i] = p.start()
						}
					}
					if signedOut {
						p.signIn(now)
					}
					require.LessOrEqual(t, p.signIns, between+anywhere)
					require.LessOrEqual(t, p.server.Reuses(), between+anywhere)
				}
			}
			if noRevocation {
				require.Zero(t, p.signIns)
			}
			t.Logf("%d expiries; killed %d before the exchange, %d between exchange and save, %d anywhere; %d sign-ins", expiries, before, between, anywhere, p.signIns)
			require.Positive(t, between)
		})
	}
}
