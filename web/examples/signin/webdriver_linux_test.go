package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/web/internal/env"
)

// browser is a headless Chromium, driven by the protocol of W3C WebDriver.
type browser struct {
	t       *testing.T
	session string // the URL of its session
}

var driverPort = regexp.MustCompile(`started successfully on port (\d+)`)

// startBrowser starts chromedriver, and with it Chromium with a profile of its
// own. They end with the test.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	driver, err := exec.LookPath("chromedriver")
	env.Require(t, err == nil, "chromedriver is not installed (Debian: apt-get install chromium-driver)")
	chromium, err := exec.LookPath("chromium")
	env.Require(t, err == nil, "chromium is not installed (Debian: apt-get install chromium)")

	cmd := exec.Command(driver, "--port=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
		cmd.Wait()                                      //nolint:errcheck // it was killed
	})
	port := ""
	for lines := bufio.NewScanner(out); port == "" && lines.Scan(); {
		if m := driverPort.FindStringSubmatch(lines.Text()); m != nil {
			port = m[1]
		}
	}
	require.NotEmpty(t, port, "chromedriver did not start")
	go io.Copy(io.Discard, out) //nolint:errcheck // until it ends

	b := &browser{t, "http://127.0.0.1:" + port + "/session"}
	var s struct {
		ID string `json:"sessionId"`
	}
	b.do(http.MethodPost, "", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName": "chrome",
		"goog:chromeOptions": map[string]any{"binary": chromium, "args": []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
			"--disable-background-networking", "--disable-component-update", "--disable-sync",
			"--user-data-dir=" + t.TempDir(), "--window-size=900,1000",
		}},
	}}}, &s)
	b.session += "/" + s.ID
	// Quit before the profile's folder is removed.
	t.Cleanup(func() { b.try(http.MethodDelete, "", nil, nil) })
	b.do(http.MethodPost, "/timeouts", map[string]any{"implicit": 60_000, "pageLoad": 120_000}, nil)
	return b
}

func (b *browser) try(method, path string, body, answer any) error {
	var in io.Reader
	if method == http.MethodPost {
		if body == nil {
			body = struct{}{}
		}
		j, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(j)
	}
	r, err := http.NewRequest(method, b.session+path, in)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Timeout: 5 * time.Minute}).Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var out struct{ Value json.RawMessage }
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("webdriver: %s %s: %s", method, path, out.Value)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(out.Value, answer)
}

func (b *browser) do(method, path string, body, answer any) {
	b.t.Helper()
	require.NoError(b.t, b.try(method, path, body, answer))
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.do(http.MethodPost, "/url", map[string]string{"url": url}, nil)
}

func (b *browser) url() (u string) {
	b.t.Helper()
	b.do(http.MethodGet, "/url", nil, &u)
	return u
}

func (b *browser) title() (s string) {
	b.t.Helper()
	b.do(http.MethodGet, "/title", nil, &s)
	return s
}

func (b *browser) source() (s string) {
	b.t.Helper()
	b.do(http.MethodGet, "/source", nil, &s)
	return s
}

// element waits for an element and returns its path in the session.
func (b *browser) element(xpath string) string {
	b.t.Helper()
	var e map[string]string
	b.do(http.MethodPost, "/element", map[string]string{"using": "xpath", "value": xpath}, &e)
	for _, id := range e {
		return "/element/" + id
	}
	b.t.Fatal("webdriver: no element")
	return ""
}

func (b *browser) click(xpath string) {
	b.t.Helper()
	b.do(http.MethodPost, b.element(xpath)+"/click", nil, nil)
}

// text returns the text of an element. A page that is on its way may have replaced
// the element since it was found: then it is looked for again.
func (b *browser) text(xpath string) (s string) {
	b.t.Helper()
	var err error
	for range 10 {
		err = b.try(http.MethodGet, b.element(xpath)+"/text", nil, &s)
		if err == nil || !strings.Contains(err.Error(), "stale element reference") {
			break
		}
	}
	require.NoError(b.t, err)
	return s
}

// run runs a script in the page, which no policy of the page forbids, and
// decodes what it returns.
func (b *browser) run(script string, answer any) {
	b.t.Helper()
	b.do(http.MethodPost, "/execute/sync", map[string]any{"script": script, "args": []any{}}, answer)
}

// emulate sets what the user prefers, and the width of the screen.
func (b *browser) emulate(scheme string, width int) {
	b.t.Helper()
	b.do(http.MethodPost, "/goog/cdp/execute", map[string]any{"cmd": "Emulation.setEmulatedMedia", "params": map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}}, nil)
	b.do(http.MethodPost, "/goog/cdp/execute", map[string]any{"cmd": "Emulation.setDeviceMetricsOverride", "params": map[string]any{
		"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}}, nil)
}

func (b *browser) screenshot() []byte {
	b.t.Helper()
	var s string
	b.do(http.MethodGet, "/screenshot", nil, &s)
	png, err := base64.StdEncoding.DecodeString(s)
	require.NoError(b.t, err)
	return png
}
