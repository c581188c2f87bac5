package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// authority counts requests, and answers with the body that it is given.
type authority struct {
	requests atomic.Int64
	answer   func(n int64, w http.ResponseWriter)
}

func (a *authority) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	n := a.requests.Add(1)
	if a.answer != nil {
		a.answer(n, w)
	}
	if w.Code == 200 && w.Body.Len() == 0 {
		io.WriteString(w, documentOf(r.URL.String())) //nolint:errcheck // a recorder
	}
	if w.Code == 599 {
		return nil, errors.New("no answer")
	}
	return w.Result(), nil
}

func documentOf(url string) string {
	return fmt.Sprintf(`{"issuer":%q,"authorization_endpoint":"https://login.example/authorize","token_endpoint":"https://login.example/token"}`, url)
}

func get(t testing.TB, rt http.RoundTripper, url string) (int, string) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	res, err := rt.RoundTrip(r)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(b)
}

const contoso, fabrikam = "https://login.example/contoso/v2.0" + path, "https://login.example/fabrikam/v2.0" + path

func TestDocumentsAreKeptForAnHour(t *testing.T) {
	a := &authority{}
	transport, now := NewTransport(a), time.Now()
	transport.now = func() time.Time { return now }
	for range 3 {
		status, body := get(t, transport, contoso)
		require.Equal(t, 200, status)
		require.Equal(t, documentOf(contoso), body)
	}
	require.EqualValues(t, 1, a.requests.Load())
	_, body := get(t, transport, fabrikam)
	require.Equal(t, documentOf(fabrikam), body)
	require.EqualValues(t, 2, a.requests.Load())
	now = now.Add(Lifetime)
	get(t, transport, contoso)
	require.EqualValues(t, 3, a.requests.Load())
}

func TestOtherRequestsPassThrough(t *testing.T) {
	a := &authority{}
	transport := NewTransport(a)
	for range 2 {
		get(t, transport, "https://login.example/contoso/oauth2/v2.0/token")
		for _, change := range []func(r *http.Request){
			func(r *http.Request) { r.Method = http.MethodPost },
			func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") },
			func(r *http.Request) { r.Header.Set("Cookie", "a=b") },
		} {
			r, err := http.NewRequest(http.MethodGet, contoso, nil)
			require.NoError(t, err)
			change(r)
			res, err := transport.RoundTrip(r)
			require.NoError(t, err)
			res.Body.Close()
		}
	}
	require.EqualValues(t, 8, a.requests.Load())
}

// What is no document is passed on as it is, and asked for again.
func TestFailuresAreNotKept(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"a status":          func(w http.ResponseWriter) { w.WriteHeader(503) },
		"no answer":         func(w http.ResponseWriter) { w.WriteHeader(599) },
		"a page of a proxy": func(w http.ResponseWriter) { io.WriteString(w, "<html>Please sign in to the network</html>") }, //nolint:errcheck // a recorder
		"another document": func(w http.ResponseWriter) {
			io.WriteString(w, `{"issuer":"https://login.example","token_endpoint":""}`)
		}, //nolint:errcheck // a recorder
		"half of one": func(w http.ResponseWriter) { io.WriteString(w, documentOf(contoso)[:60]) }, //nolint:errcheck // a recorder
		"too large":   func(w http.ResponseWriter) { w.Write(make([]byte, maxBytes+1)) },           //nolint:errcheck // a recorder
	} {
		t.Run(name, func(t *testing.T) {
			a := &authority{answer: func(n int64, w http.ResponseWriter) {
				if n == 1 {
					answer(w)
				}
			}}
			transport := NewTransport(a)
			status, body := get(t, transport, contoso)
			switch name {
			case "a status":
				require.Equal(t, 503, status)
			case "no answer":
				require.Equal(t, "no answer", body)
			case "too large":
				require.Len(t, body, maxBytes+1)
			default:
				require.Equal(t, 200, status)
				require.NotEqual(t, documentOf(contoso), body)
			}
			status, _ = get(t, transport, contoso)
			require.Equal(t, 200, status)
			get(t, transport, contoso)
			require.EqualValues(t, 2, a.requests.Load())
		})
	}
}

// Many at once make one request. Where it fails, the others ask for themselves.
func TestRequestsAtOnce(t *testing.T) {
	for fails, want := range map[bool]int64{false: 1, true: 64} {
		synctest.Test(t, func(t *testing.T) {
			a := &authority{}
			a.answer = func(n int64, w http.ResponseWriter) {
				<-time.After(time.Second)
				if fails && n == 1 {
					w.WriteHeader(503)
				}
			}
			transport := NewTransport(a)
			var failed atomic.Int64
			var all sync.WaitGroup
			for range 64 {
				all.Add(1)
				go func() {
					defer all.Done()
					if status, _ := get(t, transport, contoso); status != 200 {
						failed.Add(1)
					}
				}()
			}
			all.Wait()
			require.Equal(t, want, a.requests.Load())
			if fails {
				require.EqualValues(t, 1, failed.Load())
			} else {
				require.Zero(t, failed.Load())
			}
		})
	}
}

// Who waits for another's request ends with the own context.
func TestWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{answer: func(_ int64, w http.ResponseWriter) { <-time.After(time.Minute) }}
		transport := NewTransport(a)
		first := make(chan struct{})
		go func() {
			defer close(first)
			get(t, transport, contoso)
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, contoso, nil)
		require.NoError(t, err)
		start := time.Now()
		_, err = transport.RoundTrip(r)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		<-first
	})
}

// What is kept is bounded.
func TestDocumentsAreBounded(t *testing.T) {
	transport := NewTransport(&authority{})
	for i := range 3 * maxDocuments {
		get(t, transport, "https://login.example/"+string(rune('a'+i%26))+strings.Repeat("x", i/26)+path)
	}
	require.Len(t, transport.kept, maxDocuments)
}
