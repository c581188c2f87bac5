// Package entratest is a test authority: a small Microsoft Entra ID on loopback,
// for the tests and demonstrations of programs that sign users in. [Start] it,
// give its HTTP client and its [Authority] URL to MSAL, and sign a user in:
//
//	s, err := entratest.Start(entratest.Options{})
//	defer s.Close()
//	client, err := public.New(clientID,
//		public.WithAuthority(entratest.Authority(entratest.Contoso)),
//		public.WithHTTPClient(s.Client()),
//		public.WithCache(cache))
//
// The credentials of azidentity and azcredential take that client as Transport of their
// ClientOptions.
//
// [Server.SignIn] puts a signed-in user into a cache, for tests of what comes
// after a sign-in. [Approve], [Decline], [Authorize] and [Browser] do what the
// user does, for tests of the sign-in itself. [Expire], [Server.SetLifetime],
// [Server.Revoke], [Server.Fail], [Server.Hold] and [Server.SetDelay] cause what
// is rare with a real authority. [Server.Requests], [Server.Reuses] and
// [Server.Issued] tell what has happened.
//
// The mock keyrings for such tests are in package keyringtest. The program in
// examples/testing uses both.
//
// # What it does
//
// The server speaks the v2.0 protocol over HTTPS, with real sockets: instance
// discovery, OpenID configuration and keys; the grants device_code (RFC 8628),
// authorization_code with PKCE (RFC 7636), refresh_token with rotation and reuse
// detection (RFC 9700, section 4.14.2), client_credentials with a secret, and
// on-behalf-of. Tokens are signed (ES256), and name the client's capabilities
// (xms_cc). It checks what it is given: a code can
// be used once, a verifier must match its challenge, a secret its client, and an
// assertion its signature.
//
// A client made by [Server.Client] or [NewClient] resolves
// login.microsoftonline.com and its aliases to this server, and reaches nothing
// else but loopback. So nothing leaves the machine, and authorities, cache keys
// and discovery are the real ones.
//
// # What it does not do
//
// It has no passwords, no consent and no conditional access: every program of the
// machine that reaches its page can sign in as any of its users. Never trust its
// tokens outside of a test. What the real Entra ID does beyond the above,
// and the exact wording of its errors, is not promised.
package entratest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tenants that the server knows. A request may also name one of "common" and
// "organizations", and then gets the tenant of the user who signs in.
const (
	Contoso  = "c0000000-0000-4000-8000-000000000001"
	Fabrikam = "f0000000-0000-4000-8000-000000000002"
)

// User is somebody who can sign in. A user of one tenant is a guest in every
// other one, with another object ID there.
type User struct {
	Username string // unique, for example "alice@contoso.example"
	Name     string
	ID       string // the object id in the home tenant, a GUID
	Tenant   string // the home tenant
}

// HomeAccountID returns the user's ID in MSAL's caches and accounts.
func (u User) HomeAccountID() string { return u.ID + "." + u.Tenant }

// The users of a server whose [Options] name none.
var (
	Alice = User{"alice@contoso.example", "Alice Ames", "a0000000-0000-4000-8000-00000000000a", Contoso}
	Bob   = User{"bob@contoso.example", "Bob Burns", "b0000000-0000-4000-8000-00000000000b", Contoso}
	Carol = User{"carol@fabrikam.example", "Carol Cruz", "c0000000-0000-4000-8000-00000000000c", Fabrikam}
)

// Hosts by which clients reach the server, the aliases of the public cloud.
var hosts = []string{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"}

// Authority returns the authority URL of a tenant, for MSAL.
func Authority(tenant string) string { return "https://" + hosts[0] + "/" + tenant }

// Options change what a [Server] does. The zero value is a strict server with
// the users Alice, Bob and Carol.
type Options struct {
	// Users who can sign in; nil means Alice, Bob and Carol.
	Users []User
	// Secrets holds the secret of each confidential client, by client ID. Every
	// other client is a public one.
	Secrets map[string]string
	// Interval is the shortest time between two polls of a device code that is
	// not approved yet; a poll that comes sooner is answered with slow_down.
	// 0 means one second; a negative one allows any poll.
	Interval time.Duration
	// DeviceLifetime is how long a device code can be used; 0 means 15 minutes.
	DeviceLifetime time.Duration
	// RefreshLifetime is how long a refresh token can be used; 0 means 90 days.
	RefreshLifetime time.Duration
	// AllowReuse lets a refresh token be used again after it was exchanged for
	// a new one, as the real Entra ID does. Otherwise the server takes the second
	// use for theft, and revokes all refresh tokens of that sign-in.
	AllowReuse bool
	// StateFile is a file for the hashes of the refresh tokens: several servers,
	// at once or one after the other, can share it. "" means memory, which ends
	// with the server.
	StateFile string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Server is a running authority. Its methods are safe for concurrent use. It
// runs until [Server.Close].
type Server struct {
	o      Options
	der    []byte // the server's certificate
	key    *ecdsa.PrivateKey
	login  *http.Server // TLS: the protocol
	page   *http.Server // plain: the page where a person enters the device code; a browser would distrust our certificate
	addr   string
	pages  string // the page's base URL
	tokens *tokenStore

	mu       sync.Mutex
	access   time.Duration // lifetime of access tokens
	refresh  time.Duration // refresh_in of access tokens, 0 for none
	delay    time.Duration // before each answer to a request for tokens
	devices  map[string]*device
	codes    map[string]*code
	counts   map[string]int
	reuses   int
	issued   []string
	failures map[string][]Failure
	holds    map[string][]*Hold
	closing  chan struct{}
	closed   sync.Once
}

// Start starts a server on loopback, on two free ports. It fails if it cannot
// listen there.
func Start(o Options) (*Server, error) {
	if o.Users == nil {
		o.Users = []User{Alice, Bob, Carol}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.Interval, time.Second)
	setDefault(&o.DeviceLifetime, 15*time.Minute)
	setDefault(&o.RefreshLifetime, 90*24*time.Hour)
	s := &Server{
		o: o, tokens: newTokenStore(o.StateFile), access: time.Hour,
		devices: map[string]*device{}, codes: map[string]*code{}, counts: map[string]int{},
		failures: map[string][]Failure{}, holds: map[string][]*Hold{}, closing: make(chan struct{}),
	}
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if s.der, err = selfSigned(s.key); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("entratest: %w", err)
	}
	p, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("entratest: %w", err), l.Close())
	}
	s.addr, s.pages = l.Addr().String(), "http://"+p.Addr().String()
	quiet := log.New(io.Discard, "", 0)
	s.login = &http.Server{Handler: s.protocol(), ErrorLog: quiet, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{s.der}, PrivateKey: s.key}}}}
	s.page = &http.Server{Handler: s.devicePages(), ErrorLog: quiet, ReadHeaderTimeout: 10 * time.Second}
	go s.login.ServeTLS(l, "", "") //nolint:errcheck // always an error: that of Close
	go s.page.Serve(p)             //nolint:errcheck // the same
	return s, nil
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

// Close stops the server at once. Requests that are held or in flight fail. It
// may be called again.
func (s *Server) Close() error {
	s.closed.Do(func() { close(s.closing) })
	return errors.Join(s.login.Close(), s.page.Close())
}

// Endpoint returns the server's address and certificate in one line, for
// [NewClient] in another process. There is no secret in it.
func (s *Server) Endpoint() string {
	return s.addr + " " + base64.RawStdEncoding.EncodeToString(s.der)
}

// Client returns a new HTTP client of the server, as [NewClient] makes it.
func (s *Server) Client() *http.Client {
	c, err := NewClient(s.Endpoint())
	if err != nil {
		panic(err) // our own endpoint
	}
	return c
}

// NewClient returns an HTTP client of the server whose [Server.Endpoint] is
// endpoint, and an error if endpoint is malformed. The client reaches that server
// as login.microsoftonline.com (or an alias) over TLS, trusts nothing but its
// certificate, uses no proxy, and reaches nothing else but loopback.
func NewClient(endpoint string) (*http.Client, error) {
	addr, cert, ok := strings.Cut(endpoint, " ")
	if _, err := netip.ParseAddrPort(addr); !ok || err != nil {
		return nil, errors.New("entratest: not an endpoint")
	}
	der, err := base64.RawStdEncoding.DecodeString(cert)
	if err != nil {
		return nil, fmt.Errorf("entratest: the endpoint's certificate: %w", err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("entratest: the endpoint's certificate: %w", err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(ca)
	var d net.Dialer
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: trusted},
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(to)
			if err != nil {
				return nil, err
			}
			ip, _ := netip.ParseAddr(host)
			switch {
			case slices.Contains(hosts, host):
				to = addr
			case host != "localhost" && !ip.IsLoopback():
				return nil, fmt.Errorf("entratest: %s is not on loopback", host)
			}
			return d.DialContext(ctx, network, to)
		},
	}}, nil
}

func selfSigned(key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "a pretend authority on loopback"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(7 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: hosts, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
}

func (s *Server) protocol() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /common/discovery/instance", s.instance)
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", s.inTenant(s.configuration))
	mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", s.inTenant(s.keys))
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/devicecode", s.inTenant(s.devicecode))
	mux.HandleFunc("GET /{tenant}/oauth2/v2.0/authorize", s.inTenant(s.authorizePage))
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/authorize", s.inTenant(s.authorize))
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", s.inTenant(s.token))
	return http.MaxBytesHandler(mux, 1<<20)
}

// inTenant passes on requests whose path names a tenant that exists.
func (s *Server) inTenant(h func(w http.ResponseWriter, r *http.Request, tenant string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tenant := strings.ToLower(r.PathValue("tenant"))
		known := tenant == "common" || tenant == "organizations" || tenant == Contoso || tenant == Fabrikam ||
			slices.ContainsFunc(s.o.Users, func(u User) bool { return u.Tenant == tenant })
		if !known {
			fail(w, refuse("invalid_request", 90002, "Tenant not found."))
			return
		}
		if err := r.ParseForm(); err != nil {
			fail(w, refuse("invalid_request", 900144, "The request body is not a form."))
			return
		}
		h(w, r, tenant)
	}
}

// instance vouches for the hosts of this cloud and for no others.
func (s *Server) instance(w http.ResponseWriter, r *http.Request) {
	s.count("instance")
	rest, ok := strings.CutPrefix(r.URL.Query().Get("authorization_endpoint"), "https://")
	host, path, _ := strings.Cut(rest, "/")
	tenant, _, _ := strings.Cut(path, "/")
	if !ok || !slices.Contains(hosts, host) {
		fail(w, refuse("invalid_instance", 50049, "Unknown or invalid instance."))
		return
	}
	reply(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": "https://" + host + "/" + tenant + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata":                  []any{map[string]any{"preferred_network": hosts[0], "preferred_cache": hosts[1], "aliases": hosts}},
	})
}

func (s *Server) configuration(w http.ResponseWriter, r *http.Request, tenant string) {
	s.count("openid-configuration")
	base := "https://" + r.Host + "/" + tenant
	issued := issuer(tenant)
	if tenant == "common" || tenant == "organizations" {
		issued = issuer("{tenantid}")
	}
	reply(w, http.StatusOK, map[string]any{
		"issuer":                                issued,
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"device_authorization_endpoint":         base + "/oauth2/v2.0/devicecode",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query", "form_post"},
		"scopes_supported":                      []string{"openid", "profile", "offline_access"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
		"code_challenge_methods_supported":      []string{"S256", "plain"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post"},
	})
}

func (s *Server) user(username string) (User, bool) {
	i := slices.IndexFunc(s.o.Users, func(u User) bool { return strings.EqualFold(u.Username, username) })
	if i < 0 {
		return User{}, false
	}
	return s.o.Users[i], true
}

func reply(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		panic(err) // maps of strings and numbers
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(b.Bytes()) //nolint:errcheck // the client has gone
}

// refusal is an OAuth error response.
type refusal struct {
	status      int
	code        string // of RFC 6749 or RFC 8628
	aadsts      int
	description string
}

func (e *refusal) Error() string {
	return fmt.Sprintf("%s: AADSTS%d: %s", e.code, e.aadsts, e.description)
}

func refuse(code string, aadsts int, description string) *refusal {
	return &refusal{http.StatusBadRequest, code, aadsts, description}
}

func fail(w http.ResponseWriter, err error) {
	var e *refusal
	if !errors.As(err, &e) {
		e = &refusal{http.StatusInternalServerError, "server_error", 90033, "A transient error has occurred. Please try again."}
	}
	reply(w, e.status, map[string]any{
		"error":             e.code,
		"error_description": fmt.Sprintf("AADSTS%d: %s", e.aadsts, e.description),
		"error_codes":       []int{e.aadsts},
	})
}
