package entratest

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// SetLifetime sets the lifetime of the access tokens issued from now on, in
// whole seconds (an hour at first), and their refresh_in, after which MSAL
// refreshes them although they are valid: 0 means none, and less than a second
// means at once. MSAL treats a token that ends in less than five minutes as
// expired, so with a lifetime of a minute every silent sign-in refreshes.
func (s *Server) SetLifetime(access, refreshIn time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access, s.refresh = access, refreshIn
}

// SetDelay makes each answer to a request for tokens take d longer from now on;
// 0, the value at first, means no delay. Where a test needs an order of events,
// use [Server.Hold].
func (s *Server) SetDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// Requests returns the number of requests so far: for tokens by one of the
// grants, or to one of the endpoints "instance", "openid-configuration",
// "keys", "devicecode" and "authorize".
func (s *Server) Requests(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[what]
}

// Reuses returns how often a refresh token was used after it had been exchanged.
func (s *Server) Reuses() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reuses
}

// Issued returns every secret that the server has issued: tokens, device codes
// and authorization codes. A test can search for them in logs and files.
func (s *Server) Issued() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}

func (s *Server) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// Failure is an answer without tokens.
type Failure struct {
	Status     int           // for example 429 or 503; 0 closes the connection without an answer
	Code       string        // the OAuth error; "" means "temporarily_unavailable"
	RetryAfter time.Duration // in whole seconds; 0 sends no such header
}

// Fail makes the next n requests for tokens by a grant fail, before anything is
// issued or spent. Failures of one grant are used up in order. With n = 0 it forgets
// those that are left: a test of an outage begins it with a large n, and ends it so.
func (s *Server) Fail(grant string, n int, f Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n <= 0 {
		delete(s.failures, grant)
		return
	}
	s.failures[grant] = append(s.failures[grant], slices.Repeat([]Failure{f}, n)...)
}

func (s *Server) failure(grant string) (Failure, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.failures[grant]
	if len(q) == 0 {
		return Failure{}, false
	}
	s.failures[grant] = q[1:]
	return q[0], true
}

func (f Failure) answer(w http.ResponseWriter) {
	if f.Status == 0 {
		panic(http.ErrAbortHandler) // closes the connection
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(seconds(f.RetryAfter), 10))
	}
	code := f.Code
	if code == "" {
		code = "temporarily_unavailable"
	}
	fail(w, &refusal{f.Status, code, 90033, "A transient error has occurred. Please try again."})
}

// Hold is an answer that is held back, made by [Server.Hold].
type Hold struct {
	arrived, released chan struct{}
	once              sync.Once
}

// Hold holds back the answer to the next request for tokens by a grant, until
// [Hold.Release]. The request has then been served: what it spends is spent and
// what it issues is issued; only the client does not know yet. Any number of
// answers can be held at once: each call is for one more request, in the order
// in which they arrive. A request that [Server.Fail] answers is not held.
func (s *Server) Hold(grant string) *Hold {
	h := &Hold{arrived: make(chan struct{}), released: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[grant] = append(s.holds[grant], h)
	return h
}

// Arrived returns a channel that is closed when the request has been served and
// its answer is held back.
func (h *Hold) Arrived() <-chan struct{} { return h.arrived }

// Release sends the answer. It may be called at any time, and again: released
// before its request arrives, the Hold holds nothing back.
func (h *Hold) Release() { h.once.Do(func() { close(h.released) }) }

// wait holds the answer back for as long as the test wants. It reports whether
// the client and the server are still there.
func (s *Server) wait(ctx context.Context, grant string) bool {
	s.mu.Lock()
	var h *Hold
	if q := s.holds[grant]; len(q) > 0 {
		h, s.holds[grant] = q[0], q[1:]
	}
	delay := s.delay
	s.mu.Unlock()
	if h != nil {
		close(h.arrived)
		select {
		case <-h.released:
		case <-ctx.Done():
			return false
		case <-s.closing:
			return false
		}
	}
	if delay <= 0 {
		return true
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-s.closing:
	}
	return false
}
