package entratest

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Grants, as clients name them in requests for tokens: the arguments of
// [Server.Requests], [Server.Fail] and [Server.Hold].
const (
	GrantDeviceCode        = "device_code" // MSAL's name; RFC 8628's is taken for it
	GrantAuthorizationCode = "authorization_code"
	GrantRefreshToken      = "refresh_token"
	GrantClientCredentials = "client_credentials"
	GrantOnBehalfOf        = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	grantDeviceCodeRFC     = "urn:ietf:params:oauth:grant-type:device_code"
)

// device is a sign-in with a device code.
type device struct {
	userCode string
	client   string
	tenant   string
	scopes   []string // that were asked for with it
	until    time.Time
	interval time.Duration
	polled   time.Time
	user     string // who approved it
	declined bool
}

// code is an authorization code.
type code struct {
	client, redirect, tenant, user string
	challenge, method              string
	until                          time.Time
	family                         string // of what it was spent for
}

func (s *Server) devicecode(w http.ResponseWriter, r *http.Request, tenant string) {
	s.count("devicecode")
	client := r.PostForm.Get("client_id")
	if client == "" {
		fail(w, refuse("invalid_request", 900144, "The request body must contain the parameter 'client_id'."))
		return
	}
	secret, user := random(48), userCode()
	interval := max(s.o.Interval, 0)
	s.mu.Lock()
	s.devices[secret] = &device{userCode: user, client: client, tenant: tenant, scopes: strings.Fields(r.PostForm.Get("scope")),
		until: s.o.Now().Add(s.o.DeviceLifetime), interval: interval}
	s.issued = append(s.issued, secret)
	s.mu.Unlock()
	page := s.pages + "/devicelogin"
	reply(w, http.StatusOK, map[string]any{
		"device_code": secret, "user_code": user, "verification_uri": page,
		"expires_in": seconds(s.o.DeviceLifetime), "interval": max(seconds(interval), 1),
		"message": "To sign in, use a web browser to open the page " + page + " and enter the code " + user + " to authenticate.",
	})
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// token answers a request at the token endpoint.
func (s *Server) token(w http.ResponseWriter, r *http.Request, tenant string) {
	grant := r.PostForm.Get("grant_type")
	if grant == grantDeviceCodeRFC {
		grant = GrantDeviceCode
	}
	s.count(grant)
	if f, ok := s.failure(grant); ok {
		f.answer(w)
		return
	}
	answer, err := s.grant(r, grant, tenant)
	if !s.wait(r.Context(), grant) {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, answer)
}

func (s *Server) grant(r *http.Request, grant, tenant string) (map[string]any, error) {
	f := r.PostForm
	client := f.Get("client_id")
	if client == "" {
		return nil, refuse("invalid_request", 900144, "The request body must contain the parameter 'client_id'.")
	}
	secret, confidential := s.o.Secrets[client]
	if confidential && subtle.ConstantTimeCompare([]byte(secret), []byte(f.Get("client_secret"))) != 1 {
		return nil, &refusal{http.StatusUnauthorized, "invalid_client", 7000215, "Invalid client secret provided."}
	}
	scopes, capabilities := strings.Fields(f.Get("scope")), capabilitiesIn(f.Get("claims"))
	switch grant {
	case GrantDeviceCode:
		d, err := s.redeemDevice(f.Get("device_code"), client, tenant)
		if err != nil {
			return nil, err
		}
		// RFC 8628 has the scopes in the first request alone; MSAL Go repeats them.
		return s.begin(session{Family: random(12), User: d.user, Client: client, Tenant: tenant}, d.scopes, capabilities)
	case GrantAuthorizationCode:
		c, err := s.redeemCode(f.Get("code"), client, tenant, f.Get("redirect_uri"), f.Get("code_verifier"))
		if err != nil {
			return nil, err
		}
		return s.begin(session{Family: c.family, User: c.user, Client: client, Tenant: tenant}, scopes, capabilities)
	case GrantRefreshToken:
		n, next, err := s.exchange(f.Get("refresh_token"), client)
		if err != nil {
			return nil, err
		}
		n.Tenant = tenant
		return s.answer(n, scopes, next, capabilities)
	case GrantClientCredentials, GrantOnBehalfOf:
		if !confidential {
			return nil, &refusal{http.StatusUnauthorized, "invalid_client", 7000218, "The request body must contain the parameter 'client_secret'."}
		}
		if grant == GrantClientCredentials {
			return s.clientCredentials(client, tenant, scopes, capabilities)
		}
		return s.onBehalfOf(f, client, tenant, scopes, capabilities)
	default:
		return nil, refuse("unsupported_grant_type", 70003, "The grant type is not supported.")
	}
}

func (s *Server) clientCredentials(client, tenant string, scopes, capabilities []string) (map[string]any, error) {
	scopes = slices.DeleteFunc(scopes, isOpenID)
	if tenant == "common" || tenant == "organizations" {
		return nil, refuse("invalid_request", 50059, "No tenant-identifying information found in the request.")
	}
	if len(scopes) != 1 || !strings.HasSuffix(scopes[0], "/.default") {
		return nil, refuse("invalid_scope", 1002012, "Client credential flows must have a scope value with /.default suffixed to the resource identifier.")
	}
	return s.answer(session{Client: client, Tenant: tenant}, scopes, "", capabilities)
}

func (s *Server) onBehalfOf(f url.Values, client, tenant string, scopes, capabilities []string) (map[string]any, error) {
	if f.Get("requested_token_use") != "on_behalf_of" {
		return nil, refuse("invalid_request", 900144, "The request body must contain the parameter 'requested_token_use'.")
	}
	a, ok := s.verify(f.Get("assertion"))
	if !ok || a.Scopes == "" {
		return nil, refuse("invalid_grant", 50013, "The assertion is not an access token of this authority for a user.")
	}
	if a.Expires <= s.o.Now().Unix() {
		return nil, refuse("invalid_grant", 500133, "The assertion has expired.")
	}
	return s.begin(session{Family: random(12), User: a.Username, Client: client, Tenant: tenant}, scopes, capabilities)
}

// redeemDevice returns the device code's sign-in once it is approved.
func (s *Server) redeemDevice(secret, client, tenant string) (*device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	d, ok := s.devices[secret]
	if !ok || d.client != client || d.tenant != tenant {
		return nil, refuse("bad_verification_code", 70000, "The device code is not known.")
	}
	early := !d.polled.IsZero() && now.Sub(d.polled) < d.interval
	d.polled = now
	switch {
	case !d.until.After(now):
		delete(s.devices, secret)
		return nil, refuse("expired_token", 70020, "The device code has expired.")
	case d.declined:
		delete(s.devices, secret)
		return nil, refuse("authorization_declined", 70018, "The user declined the sign-in.")
	case d.user != "":
		delete(s.devices, secret) // a code is good for one sign-in
		return d, nil
	case early:
		return nil, refuse("slow_down", 50196, "The device code is polled too often.")
	default:
		return nil, refuse("authorization_pending", 70016, "The sign-in is still pending. Continue polling.")
	}
}

// redeemCode returns the authorization code's sign-in, once.
func (s *Server) redeemCode(secret, client, tenant, redirect, verifier string) (code, error) {
	s.mu.Lock()
	c, ok := s.codes[secret]
	if ok && c.family != "" { // RFC 6749, section 4.1.2: a code that is used twice has been stolen
		s.mu.Unlock()
		if err := s.revoke(func(n session) bool { return n.Family == c.family }); err != nil {
			return code{}, err
		}
		return code{}, refuse("invalid_grant", 54005, "The authorization code was already redeemed.")
	}
	defer s.mu.Unlock()
	if !ok || c.client != client || c.tenant != tenant || c.redirect != redirect {
		return code{}, refuse("invalid_grant", 70000, "The authorization code is not known for this client and redirect URI.")
	}
	if !c.until.After(s.o.Now()) {
		return code{}, refuse("invalid_grant", 70008, "The authorization code has expired.")
	}
	proof := verifier
	if c.method == "S256" {
		proof = base64.RawURLEncoding.EncodeToString(digest(verifier))
	}
	if c.challenge != "" && subtle.ConstantTimeCompare([]byte(proof), []byte(c.challenge)) != 1 {
		return code{}, refuse("invalid_grant", 501481, "The code verifier does not match the code challenge.")
	}
	c.family = random(12)
	return *c, nil
}

// begin answers the first request of a session.
func (s *Server) begin(n session, scopes, capabilities []string) (map[string]any, error) {
	var token string
	if slices.Contains(scopes, "offline_access") {
		if err := s.tokens.update(func(m map[string]session) error { token = s.open(m, n); return nil }); err != nil {
			return nil, err
		}
	}
	return s.answer(n, scopes, token, capabilities)
}

func isOpenID(scope string) bool {
	return scope == "openid" || scope == "profile" || scope == "email" || scope == "offline_access"
}

// answer makes a token response: for a user, unless n has none.
func (s *Server) answer(n session, scopes []string, refresh string, capabilities []string) (map[string]any, error) {
	s.mu.Lock()
	access, refreshIn := s.access, s.refresh
	s.mu.Unlock()
	now := s.o.Now()
	c := claims{
		Audience: "00000003-0000-0000-c000-000000000000", Issuer: issuer(n.Tenant), Tenant: n.Tenant, Subject: n.Client, AppID: n.Client,
		IssuedAt: now.Unix(), Expires: now.Add(access).Unix(), ID: random(16), Version: "2.0", Capabilities: capabilities,
	}
	a := map[string]any{"token_type": "Bearer", "expires_in": seconds(access), "ext_expires_in": seconds(access)}
	if refreshIn > 0 {
		a["refresh_in"] = seconds(refreshIn)
	}
	if n.User != "" {
		u, ok := s.user(n.User)
		if !ok {
			return nil, refuse("invalid_grant", 50034, "The user account does not exist.")
		}
		if c.Tenant == "common" || c.Tenant == "organizations" {
			c.Tenant, c.Issuer = u.Tenant, issuer(u.Tenant)
		}
		c.Object = u.objectID(c.Tenant)
		c.Subject, c.Username, c.Name = hash(u.ID+n.Client), u.Username, u.Name
		// Entra names the scopes that were granted, without offline_access.
		granted := slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return s == "offline_access" })
		c.Scopes = strings.Join(granted, " ")
		a["scope"] = c.Scopes
		a["client_info"] = b64json(map[string]string{"uid": u.ID, "utid": u.Tenant})
		if slices.Contains(scopes, "openid") {
			id := c
			id.Audience, id.AppID, id.Scopes, id.Capabilities = n.Client, "", "", nil
			a["id_token"] = s.sign(id)
		}
		if refresh != "" {
			a["refresh_token"] = refresh
		}
	}
	a["access_token"] = s.sign(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range []string{"access_token", "refresh_token", "id_token"} {
		if t, ok := a[k].(string); ok {
			s.issued = append(s.issued, t)
		}
	}
	return a, nil
}

// capabilitiesIn returns the client's capabilities, as the claims of a request for
// tokens name them: "CP1" means that it can answer a claims challenge.
func capabilitiesIn(claims string) []string {
	var asked struct {
		AccessToken struct {
			Capabilities struct {
				Values []string `json:"values"`
			} `json:"xms_cc"`
		} `json:"access_token"`
	}
	if json.Unmarshal([]byte(claims), &asked) != nil {
		return nil
	}
	return asked.AccessToken.Capabilities.Values
}

// userCode is eight letters without vowels, as RFC 8628, section 6.1, advises:
// easy to type, and not a word.
func userCode() string {
	const letters = "BCDFGHJKLMNPQRSTVWXZ"
	var b strings.Builder
	for i, c := range digest(random(32))[:8] {
		if i == 4 {
			b.WriteByte('-')
		}
		b.WriteByte(letters[int(c)%len(letters)])
	}
	return b.String()
}
