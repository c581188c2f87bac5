package entratest

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// SetLifetime sets the lifetime of the access tokens issued from now on (an
// hour at first; MSAL takes one that ends in less than five minutes for
// expired, so one minute makes every silent sign-in refresh) and their
// refresh_in, after which MSAL refreshes though they are valid: 0 for none, and
// less than a second for at once.
func (s *Server) SetLifetime(access, refreshIn time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access, s.refresh = access, refreshIn
}

// Requests returns how many requests have come in: for tokens by one of the
// grants, or to one of the endpoints "instance", "openid-configuration",
// "keys", "devicecode" and "authorize".
func (s *Server) Requests(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[what]
}

// Reuses returns how often a refresh token was used that had been exchanged
// before.
func (s *Server) Reuses() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reuses
}

// Issued returns every secret that the server has given out: tokens, device
// codes and authorization codes. Tests look for them where none belongs.
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

// Failure is an answer instead of tokens.
type Failure struct {
	Status     int           // for example 429 or 503; 0 closes the connection without an answer
	Code       string        // the OAuth error; "" means "temporarily_unavailable"
	RetryAfter time.Duration // in whole seconds; 0 sends no such header
}

// Fail makes the next n token requests of a grant fail, before anything is
// issued or spent.
func (s *Server) Fail(grant string, n int, f Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

// Hold is a token request whose answer waits.
type Hold struct {
	arrived, released chan struct{}
}

// Hold makes the next token request of a grant wait with its answer. The
// request has then been served: what it spends is spent, what it issues is
// issued, and only the client does not know yet. Holds of one grant are used
// up in turn.
func (s *Server) Hold(grant string) *Hold {
	h := &Hold{make(chan struct{}), make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[grant] = append(s.holds[grant], h)
	return h
}

// Arrived is closed when the request is being held.
func (h *Hold) Arrived() <-chan struct{} { return h.arrived }

// Release sends the answer on its way. It is called once.
func (h *Hold) Release() { close(h.released) }

// hold waits while the request is to be held. It returns false if the client
// or the server has gone.
func (s *Server) hold(ctx context.Context, grant string) bool {
	s.mu.Lock()
	q := s.holds[grant]
	if len(q) == 0 {
		s.mu.Unlock()
		return true
	}
	s.holds[grant] = q[1:]
	s.mu.Unlock()
	close(q[0].arrived)
	select {
	case <-q[0].released:
		return true
	case <-ctx.Done():
	case <-s.closing:
	}
	return false
}
