package entratest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
)

// claims of an access token or an id token.
type claims struct {
	Audience string `json:"aud"`
	Issuer   string `json:"iss"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	ID       string `json:"jti"`
	Tenant   string `json:"tid"`
	Object   string `json:"oid,omitempty"`
	Subject  string `json:"sub"`
	Username string `json:"preferred_username,omitempty"`
	Name     string `json:"name,omitempty"`
	Scopes   string `json:"scp,omitempty"`   // of an access token for a user
	AppID    string `json:"appid,omitempty"` // of an access token
	Version  string `json:"ver"`

	Capabilities []string `json:"xms_cc,omitempty"` // of an access token: those of the client
}

func issuer(tenant string) string { return "https://" + hosts[0] + "/" + tenant + "/v2.0" }

// objectID is the id that a user has in a tenant: the own one at home, another
// one wherever the user is a guest.
func (u User) objectID(tenant string) string {
	if tenant == u.Tenant {
		return u.ID
	}
	h := hex.EncodeToString(digest(u.ID + tenant))
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:32]
}

func (s *Server) sign(c claims) string {
	in := b64json(map[string]string{"alg": "ES256", "typ": "JWT", "kid": s.kid()}) + "." + b64json(c)
	r, t, err := ecdsa.Sign(rand.Reader, s.key, digest(in))
	if err != nil {
		panic(err) // a P-256 key of our own
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	t.FillBytes(sig[32:])
	return in + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// verify returns the claims of a token that this server has signed.
func (s *Server) verify(token string) (claims, bool) {
	var c claims
	i := strings.LastIndexByte(token, '.')
	if i < 0 {
		return c, false
	}
	_, payload, _ := strings.Cut(token[:i], ".")
	sig, err := base64.RawURLEncoding.DecodeString(token[i+1:])
	if err != nil || len(sig) != 64 {
		return c, false
	}
	r, t := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	if !ecdsa.Verify(&s.key.PublicKey, digest(token[:i]), r, t) {
		return c, false
	}
	b, err := base64.RawURLEncoding.DecodeString(payload)
	return c, err == nil && json.Unmarshal(b, &c) == nil
}

func (s *Server) kid() string {
	return base64.RawURLEncoding.EncodeToString(digest(string(s.der))[:12])
}

// keys publishes the signing key (RFC 7517).
func (s *Server) keys(w http.ResponseWriter, _ *http.Request, _ string) {
	s.count("keys")
	point, err := s.key.PublicKey.Bytes() // uncompressed: 4, X, Y
	if err != nil {
		fail(w, err)
		return
	}
	b64 := base64.RawURLEncoding.EncodeToString
	reply(w, http.StatusOK, map[string]any{"keys": []any{map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": s.kid(), "x": b64(point[1:33]), "y": b64(point[33:]),
	}}})
}

func digest(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// b64json marshals what always can be.
func b64json(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// random returns n random bytes as text.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}
