package proof

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
)

const (
	clientID    = "11111111-0000-4000-8000-000000000001"
	redirectURI = "http://localhost:1/signed-in"
)

// msalScopes are what the processes ask tokens for. A sign-in asks for the
// first; each further one costs a refresh token.
var msalScopes = []string{"User.Read", "Mail.Read", "Files.Read", "Notes.Read", "Tasks.Read"}

// user is the n-th user of an authority.
func user(n int) entratest.User {
	return entratest.User{
		Username: fmt.Sprintf("user%d@contoso.example", n), Name: fmt.Sprint("User ", n),
		ID: fmt.Sprintf("a0000000-0000-4000-8000-%012d", n), Tenant: entratest.Contoso,
	}
}

func newAuthority(t *testing.T, users int, o entratest.Options) *entratest.Server {
	t.Helper()
	for n := range users {
		o.Users = append(o.Users, user(n))
	}
	s, err := entratest.Start(o)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// app is a program that signs users in with MSAL.
type app struct {
	public.Client
	http *http.Client
}

func newApp(c cache.ExportReplace, endpoint string) (*app, error) {
	client, err := entratest.NewClient(endpoint)
	if err != nil {
		return nil, err
	}
	client.Transport = recorder{client.Transport}
	msal, err := public.New(clientID, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(client), public.WithCache(c))
	return &app{msal, client}, err
}

func (a *app) signIn(ctx context.Context, u entratest.User) (public.AuthResult, error) {
	to, err := a.AuthCodeURL(ctx, clientID, redirectURI, msalScopes[:1])
	if err != nil {
		return public.AuthResult{}, err
	}
	code, err := entratest.Authorize(ctx, a.http, to, u.Username)
	if err != nil {
		return public.AuthResult{}, err
	}
	return a.AcquireTokenByAuthCode(ctx, code, redirectURI, msalScopes[:1])
}

func (a *app) silent(ctx context.Context, account public.Account, scope string) (public.AuthResult, error) {
	return a.AcquireTokenSilent(ctx, []string{scope}, public.WithSilentAccount(account))
}

// accounts returns the accounts by their ids.
func (a *app) accounts(ctx context.Context) (map[string]public.Account, error) {
	accounts, err := a.Accounts(ctx)
	byID := map[string]public.Account{}
	for _, account := range accounts {
		byID[account.HomeAccountID] = account
	}
	return byID, err
}

// exchange is what came of a request for tokens.
type exchange struct {
	Refused string // the authority's answer, unless it was tokens
	Token   string // the fingerprint of the refresh token that came
}

type exchangeKey struct{}

// recorder writes down what comes of requests whose context has an *exchange.
type recorder struct{ next http.RoundTripper }

func (r recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	a, err := r.next.RoundTrip(q)
	x, ok := q.Context().Value(exchangeKey{}).(*exchange)
	if err != nil || !ok || !strings.HasSuffix(q.URL.Path, "/token") {
		return a, err
	}
	body, err := io.ReadAll(a.Body)
	a.Body.Close()
	if err != nil {
		return nil, err
	}
	a.Body = io.NopCloser(bytes.NewReader(body))
	var tokens struct {
		RefreshToken string `json:"refresh_token"`
		Error        string `json:"error_description"`
	}
	if err := json.Unmarshal(body, &tokens); err != nil {
		return nil, err
	}
	x.Refused, x.Token = tokens.Error, fingerprint(tokens.RefreshToken)
	return a, nil
}

func fingerprint(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

func init() { programs["session"] = sessionProgram }

// command is what a session is told to do, and answer what it says then.
type command struct {
	Do        string // "sign in", "silent", "sign out", "accounts"
	User      int
	Scope     string
	Exclusive bool
}

type answer struct {
	Err      string
	Accounts []int // the users that are signed in, of the first 10
}

// sessionProgram is a program with an MSAL client that does what it is told.
func sessionProgram(args []string) error {
	p, args := placeOf(args)
	ctx, cancel := patient()
	defer cancel()
	c, err := p.glue(ctx, args[0], false)
	if err != nil {
		return err
	}
	a, err := newApp(c, args[1])
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var cmd command
		if err := in.Decode(&cmd); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(a.obey(ctx, cmd)); err != nil {
			return err
		}
	}
}

func (a *app) obey(ctx context.Context, cmd command) (said answer) {
	var err error
	accounts, err := a.accounts(ctx)
	if err != nil {
		return answer{Err: err.Error()}
	}
	account := accounts[user(cmd.User).HomeAccountID()]
	switch cmd.Do {
	case "sign in":
		_, err = a.signIn(ctx, user(cmd.User))
	case "silent":
		_, err = a.silent(ctx, account, cmd.Scope)
	case "sign out":
		err = a.RemoveAccount(ctx, account)
	}
	if err != nil {
		return answer{Err: err.Error()}
	}
	for n := range 10 {
		if _, ok := accounts[user(n).HomeAccountID()]; ok {
			said.Accounts = append(said.Accounts, n)
		}
	}
	return said
}

// session is a running sessionProgram.
type session struct{ *process }

func startSession(t testing.TB, p place, glue string, s *entratest.Server) session {
	t.Helper()
	return session{start(t, "session", p.args(glue, s.Endpoint())...)}
}

// tell gives a command whose answer is asked for later.
func (s session) tell(cmd command) {
	s.t.Helper()
	require.NoError(s.t, json.NewEncoder(s.in).Encode(cmd))
}

func (s session) answer() (a answer) {
	s.t.Helper()
	line, ok := s.line()
	if !ok {
		s.wait()
	}
	require.NoError(s.t, json.Unmarshal([]byte(line), &a))
	return a
}

func (s session) do(cmd command) answer {
	s.t.Helper()
	s.tell(cmd)
	return s.answer()
}

// must is do, without an error.
func (s session) must(cmd command) answer {
	s.t.Helper()
	a := s.do(cmd)
	require.Empty(s.t, a.Err, "%+v", cmd)
	return a
}
