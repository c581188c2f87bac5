package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/web/internal/servers"
)

// TestMain makes the test binary the app, where a test starts it as that.
func TestMain(m *testing.M) {
	if os.Getenv("SIGNIN_APP") != "" {
		main()
		return
	}
	os.Exit(servers.Main(m))
}

// process is the app, in a process of its own.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	mu   sync.Mutex
	logs bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logs.Write(b)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logs.String()
}

var opened = regexp.MustCompile(`Open (http://\S+) in a browser`)

// start starts the app and waits until it listens.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(exe, args...)}
	p.cmd.Env = append(os.Environ(), "SIGNIN_APP=1")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Stderr = p
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(p.kill)
	for lines := bufio.NewScanner(out); p.url == "" && lines.Scan(); {
		if m := opened.FindStringSubmatch(lines.Text()); m != nil {
			p.url = m[1]
		}
	}
	require.NotEmpty(t, p.url, "the app did not start: %s", p.log())
	return p
}

// kill ends the app as a power cut would, and looks for tokens in what it logged.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	p.cmd.Wait()         //nolint:errcheck // it was killed
	require.NotContains(p.t, p.log(), "eyJ", "a token in the log")
}

// restart kills the app and starts it again at the same address.
func (p *process) restart(args ...string) *process {
	p.t.Helper()
	p.kill()
	return start(p.t, append(args, "-addr", strings.TrimPrefix(p.url, "http://"))...)
}

// TestBrowser is what a person does, in a real browser.
func TestBrowser(t *testing.T) {
	b := startBrowser(t)
	dir := t.TempDir()
	args := []string{"-dir", dir, "-demo-lifetime", "1m"} // so short that every request renews it
	app := start(t, append(args, "-addr", "localhost:0")...)
	look := func(name string) {
		require.NotContains(t, b.source(), "eyJ", "a token in the page")
		for _, scheme := range []string{"dark", "light"} {
			for _, width := range []int{340, 900} {
				b.emulate(scheme, width)
				accessible(t, b)
				if to := os.Getenv("SIGNIN_SCREENSHOTS"); to != "" {
					require.NoError(t, os.WriteFile(filepath.Join(to, fmt.Sprintf("%s-%s-%d.png", name, scheme, width)), b.screenshot(), 0o600))
				}
			}
		}
	}

	b.open(app.url)
	require.Equal(t, "Sign in", b.text("//h1"))
	look("signed-out")

	b.click("//a[.='Sign in']")
	b.element("//h1[.='Pretend sign-in']")
	b.click("//label[contains(.,'Bob')]")
	b.click("//button[.='Decline']")
	require.Equal(t, "You were not signed in.", b.text("//*[@role='status']"))

	b.click("//a[.='Sign in']")
	b.click("//label[contains(.,'Bob')]")
	b.click("//button[.='Sign in']")
	require.Equal(t, "Hello, Bob Burns", b.text("//h1"))
	require.Contains(t, b.text("//pre"), `"userPrincipalName": "bob@contoso.example"`)
	require.Contains(t, b.text("//*[@id='source']"), "renewed")
	require.Equal(t, app.url+"/", b.url(), "the code is not left in the address")
	look("signed-in")

	app = app.restart(append(args[:2:2], "-demo-lifetime", "1h")...)
	b.click("//a[.='Call the API again']")
	require.Equal(t, "Hello, Bob Burns", b.text("//h1"), "still signed in")
	require.Contains(t, b.text("//*[@id='source']"), "renewed", "with the refresh token of the last run")
	b.click("//a[.='Call the API again']")
	require.Contains(t, b.text("//*[@id='source']"), "the store")
	require.Contains(t, b.text("//pre"), "Bob Burns")
	look("from-the-store")

	require.Equal(t, 1, rows(t, dir, "signin_accounts"))
	b.click("//button[.='Sign out']")
	require.Equal(t, "You are signed out.", b.text("//*[@role='status']"))
	look("message")
	require.Zero(t, rows(t, dir, "signin_accounts"), "nothing is left of the account")
	b.do(http.MethodPost, "/back", nil, nil)
	b.open(app.url)
	require.Equal(t, "Sign in", b.text("//h1"), "nor by going back")
	require.Contains(t, b.title(), "Sign in")
	for _, file := range []string{"signin.db", "signin.db-wal", "signin.key"} {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err == nil {
			require.NotContains(t, string(data), "bob@contoso.example", file)
			require.NotContains(t, string(data), "eyJ", file)
		}
	}
}

// rows returns how many rows the app's table has.
func rows(t *testing.T, dir, table string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "signin.db")+"?mode=ro")
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
	return n
}

// accessible checks of the page what can be checked by a program: WCAG 2.2's
// 1.3.1 and 2.4.6 (headings, landmarks), 1.4.3 (contrast), 2.4.2 (title), 3.1.1
// (language), 4.1.2 (names), 2.5.8 (size of targets).
func accessible(t *testing.T, b *browser) {
	t.Helper()
	var faults []string
	b.run(`
		const faults = [], say = s => faults.push(s);
		if (!document.documentElement.lang) say("no language");
		if (!document.title) say("no title");
		if (document.querySelectorAll("h1").length != 1) say("not one h1");
		if (document.querySelectorAll("main").length != 1) say("not one main");
		if (document.querySelectorAll("script").length) say("a script");
		const rgb = s => { const m = s.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
		const luminance = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
		const background = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] == 1) return c; } return [255, 255, 255, 1]; };
		for (const e of document.querySelectorAll("body *")) {
			if (![...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim())) continue;
			const a = luminance(rgb(getComputedStyle(e).color)), b = luminance(background(e));
			const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
			if (contrast < 4.5) say("contrast " + contrast.toFixed(2) + ": " + e.outerHTML);
		}
		for (const e of document.querySelectorAll("a, button, input")) {
			if (!(e.innerText || e.getAttribute("aria-label") || e.labels?.length)) say("no name: " + e.outerHTML);
			const r = e.getBoundingClientRect();
			if (r.width < 24 || r.height < 24) say("small: " + e.outerHTML);
			e.focus({focusVisible: true});
			if (getComputedStyle(e).outlineStyle == "none") say("no focus ring: " + e.outerHTML);
			e.blur();
		}
		if (document.documentElement.scrollWidth > innerWidth) say("wider than the window");
		return faults;`, &faults)
	require.Empty(t, faults)
}

// TestStores: one server stores the sign-in, another one at the same store has
// it, and a sign-out at one is one at both.
func TestStores(t *testing.T) {
	for name, where := range map[string]func(t *testing.T) []string{
		"SQLite":     func(*testing.T) []string { return nil },
		"Redis":      func(t *testing.T) []string { return []string{"-redis", servers.StartRedis(t).Addr} },
		"PostgreSQL": func(t *testing.T) []string { return []string{"-postgres", servers.StartPostgres(t).URL("postgres")} },
	} {
		t.Run(name, func(t *testing.T) {
			args := append(where(t), "-dir", t.TempDir(), "-addr", "localhost:0")
			one, two := start(t, args...), start(t, args...)
			alice, bob := newPerson(t), newPerson(t)
			require.Contains(t, alice.signIn(one.url, "alice@contoso.example"), "Hello, Alice Ames")
			require.Contains(t, bob.signIn(one.url, "bob@contoso.example"), "Hello, Bob Burns")
			// Cookies know no ports, so a browser takes its session along.
			require.Contains(t, alice.get(two.url), "Hello, Alice Ames")
			require.Contains(t, bob.get(two.url), "kept in "+name)

			one = one.restart(args[:len(args)-2]...)
			require.Contains(t, alice.get(one.url), "Hello, Alice Ames")
			require.Contains(t, alice.read(alice.c.PostForm(two.url+"/sign-out", nil)), "You are signed out")
			require.NotContains(t, alice.get(one.url), "Hello")
			require.Contains(t, bob.get(one.url), "Hello, Bob Burns")
		})
	}
}

// TestForgeries: an answer of the authority that this browser did not ask for,
// one that is used twice, and a form of another site.
func TestForgeries(t *testing.T) {
	app := start(t, "-dir", t.TempDir(), "-addr", "localhost:0")
	mallory, victim := newPerson(t), newPerson(t)

	// Mallory signs in and stops before the app sees the answer, to have a
	// victim use it (login CSRF).
	res, err := mallory.c.Get(app.url + "/sign-in")
	mallory.read(res, err)
	stop := *mallory.c
	stop.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err = stop.PostForm(res.Request.URL.String(), url.Values{"username": {"alice@contoso.example"}, "answer": {"yes"}})
	require.NoError(t, err)
	res.Body.Close()
	answer := res.Header.Get("Location")
	require.Contains(t, answer, "code=")
	require.Contains(t, victim.get(answer), "was not begun here")
	require.NotContains(t, victim.get(app.url), "Hello")
	require.Contains(t, mallory.get(answer), "Hello, Alice Ames", "the control: it is good where it was asked for")
	require.Contains(t, mallory.get(answer), "was not begun here, or was done already")

	r, err := http.NewRequest(http.MethodPost, app.url+"/sign-out", nil)
	require.NoError(t, err)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	res, err = mallory.c.Do(r)
	mallory.read(res, err)
	require.Equal(t, http.StatusForbidden, res.StatusCode)
	require.Contains(t, mallory.get(app.url), "Hello, Alice Ames")
}

// TestHeaders: what keeps a page that went wrong from doing harm.
func TestHeaders(t *testing.T) {
	app := start(t, "-dir", t.TempDir(), "-addr", "localhost:0")
	res, err := http.Get(app.url + "/sign-in")
	require.NoError(t, err)
	res.Body.Close()
	first := res.Request.Response // the redirect
	require.Contains(t, first.Header.Get("Content-Security-Policy"), "default-src 'none'")
	require.Equal(t, "no-store", first.Header.Get("Cache-Control"))
	require.Len(t, first.Cookies(), 1)
	c := first.Cookies()[0]
	require.True(t, c.HttpOnly)
	require.Equal(t, http.SameSiteLaxMode, c.SameSite)
	require.Less(t, len(c.Value), 100, "what this sign-in needs, not a session")
	to, err := url.Parse(first.Header.Get("Location"))
	require.NoError(t, err)
	require.Equal(t, "S256", to.Query().Get("code_challenge_method"))
	require.NotEmpty(t, to.Query().Get("code_challenge"))
	require.NotEmpty(t, to.Query().Get("state"))
	require.True(t, newSessions(true, nil).Cookie.Secure)
}

// TestDamagedRow: a user whose row does not open is asked to sign in, and can.
func TestDamagedRow(t *testing.T) {
	dir := t.TempDir()
	args := []string{"-dir", dir, "-addr", "localhost:0"}
	app := start(t, args...)
	alice := newPerson(t)
	require.Contains(t, alice.signIn(app.url, "alice@contoso.example"), "Hello, Alice Ames")
	app.kill()
	db, err := sql.Open("sqlite", filepath.Join(dir, "signin.db"))
	require.NoError(t, err)
	_, err = db.Exec("UPDATE signin_accounts SET data = x'7b7d', revision = 'changed'")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	app = app.restart(args[:2]...)
	require.Contains(t, alice.get(app.url), "Please sign in again.")
	require.Contains(t, alice.signIn(app.url, "alice@contoso.example"), "Hello, Alice Ames")
}
