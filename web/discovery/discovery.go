// Package discovery keeps the documents in which an authority says where its
// endpoints are, so that not every request of a web app asks for them.
//
//	httpClient := &http.Client{Transport: discovery.NewTransport(nil), Timeout: 30 * time.Second}
//	...
//	// for each request:
//	client, err := confidential.New(authority, clientID, credential, confidential.WithCache(cache),
//		confidential.WithHTTPClient(httpClient), confidential.WithInstanceDiscovery(false))
//
// MSAL keeps an authority's document in its client, and a web app has a client
// for each request. So without this package every refresh and every sign-in
// first asks for openid-configuration, and takes two round trips to the authority
// instead of one.
//
// The document is that of OpenID Connect Discovery 1.0, section 4. It changes
// rarely: an authority that moves its endpoints answers at the old ones for much longer
// than an hour.
package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Lifetime is how long a document is kept.
const Lifetime = time.Hour

const (
	// maxBytes is the size of the largest document that is kept. Entra ID's has
	// 2 KB.
	maxBytes = 64 << 10

	// maxDocuments is how many are kept. Each is of one authority, which for a
	// multi-tenant app may be a tenant. If there are more, one of them goes.
	maxDocuments = 1000

	// path is how a document's URL ends.
	path = "/.well-known/openid-configuration"
)

// Transport is an [http.RoundTripper] that keeps documents of discovery for
// [Lifetime], in memory. It keeps only an answer with status 200 to a GET that has no
// Authorization and no Cookie, and only if the answer names an issuer and both
// endpoints: a proxy's page would break every sign-in for an hour. All other requests
// pass through.
//
// Concurrent requests for one document become one request. If that fails, each of the
// others asks for itself, so that no request gets the error of another.
//
// A Transport is safe for concurrent use.
type Transport struct {
	base http.RoundTripper
	now  func() time.Time

	mu   sync.Mutex
	kept map[string]*document
}

// document is what is known of one URL. Its fields are set when done is closed.
type document struct {
	done chan struct{}
	ok   bool // false: each request that has waited asks for itself

	header  http.Header
	body    []byte
	expires time.Time
}

// NewTransport returns a Transport that sends requests through base. A nil base
// means http.DefaultTransport.
func NewTransport(base http.RoundTripper) *Transport {
	if base == nil {
		base = http.DefaultTransport
	}
	return &Transport{base: base, now: time.Now, kept: map[string]*document{}}
}

// RoundTrip answers from memory or sends the request on. Its errors are those of
// the base, and the context's where it waited for another request's answer.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, path) || r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
		return t.base.RoundTrip(r)
	}
	d, mine := t.claim(r.URL.String())
	if mine {
		return t.ask(r, d)
	}
	select {
	case <-d.done:
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
	if !d.ok {
		return t.base.RoundTrip(r)
	}
	return d.response(r), nil
}

// claim returns what is known of a URL. If nothing is known, or it is too old, claim
// returns a new document and true, and the caller must ask for it.
func (t *Transport) claim(url string) (d *document, mine bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.kept[url]; d != nil {
		select {
		case <-d.done:
			if t.now().Before(d.expires) {
				return d, false
			}
		default:
			return d, false // another request is asking for it
		}
	}
	d = &document{done: make(chan struct{})}
	if _, replaces := t.kept[url]; !replaces && len(t.kept) >= maxDocuments {
		for other := range t.kept {
			delete(t.kept, other)
			break
		}
	}
	t.kept[url] = d
	return d, true
}

// ask sends the request on, and keeps the answer in d if it is a document.
func (t *Transport) ask(r *http.Request, d *document) (*http.Response, error) {
	url := r.URL.String()
	defer func() {
		if !d.ok {
			t.mu.Lock()
			if t.kept[url] == d {
				delete(t.kept, url)
			}
			t.mu.Unlock()
		}
		close(d.done)
	}()
	res, err := t.base.RoundTrip(r)
	if err != nil || res.StatusCode != http.StatusOK {
		return res, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBytes+1))
	if err != nil {
		res.Body.Close()
		return nil, err
	}
	if len(body) > maxBytes {
		rest := res.Body
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), rest), rest}
		return res, nil
	}
	res.Body.Close()
	if !names(body) {
		res.Body = io.NopCloser(bytes.NewReader(body))
		return res, nil
	}
	d.header, d.body, d.expires, d.ok = res.Header.Clone(), body, t.now().Add(Lifetime), true
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

// names reports whether a body names what a program needs of a document.
func names(body []byte) bool {
	var d struct {
		Issuer        string `json:"issuer"`
		Authorization string `json:"authorization_endpoint"`
		Token         string `json:"token_endpoint"`
	}
	return json.Unmarshal(body, &d) == nil && d.Issuer != "" && d.Authorization != "" && d.Token != ""
}

// response returns the document as the answer to r.
func (d *document) response(r *http.Request) *http.Response {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: d.header.Clone(), Body: io.NopCloser(bytes.NewReader(d.body)), ContentLength: int64(len(d.body)),
		Request: r,
	}
}
