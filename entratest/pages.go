package entratest

import (
	"context"
	"errors"
	"fmt"
	"html"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

var layout = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Pretend sign-in</title><style>
body { font: 1.1em system-ui, sans-serif; max-width: 32em; margin: 3em auto; padding: 0 1em; }
input, button { font: inherit; padding: .4em .8em; margin: .3em 0; }
label { display: block; }
</style></head><body>
{{if .Callback}}<form method="post" action="{{.Callback}}">{{range .Fields}}
<input type="hidden" name="{{.Name}}" value="{{.Value}}">{{end}}
<button>Go back to the application</button></form><script>document.forms[0].submit()</script>
{{else if .Message}}<p>{{.Message}}</p>
{{else}}<h1>Pretend sign-in</h1>
<p>This authority runs on your own machine. It has no passwords, and its tokens are worth nothing.</p>
<form method="post">{{if .AskCode}}
<p><label for="code">The code that your application shows:</label><input id="code" name="user_code" value="{{.Code}}" autofocus></p>{{end}}
{{range $i, $u := .Users}}<label><input type="radio" name="username" value="{{$u.Username}}"{{if $u.Hint}} checked{{end}}> {{$u.Name}} ({{$u.Username}})</label>
{{end}}<p><button name="answer" value="yes">Sign in</button> <button name="answer" value="no">Decline</button></p></form>
{{end}}</body></html>
`))

type content struct {
	Message  string
	AskCode  bool
	Code     string
	Users    []choice
	Callback string
	Fields   []field
}
type choice struct {
	User
	Hint bool
}
type field struct{ Name, Value string }

func show(w http.ResponseWriter, status int, c content) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Frame-Options", "DENY")
	w.WriteHeader(status)
	layout.Execute(w, c) //nolint:errcheck // the browser has gone
}

func (s *Server) choices(hint string) []choice {
	var c []choice
	for i, u := range s.o.Users {
		c = append(c, choice{u, strings.EqualFold(u.Username, hint) || hint == "" && i == 0})
	}
	return c
}

// devicePages is the page where a person enters the code of a device.
func (s *Server) devicePages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /devicelogin", func(w http.ResponseWriter, r *http.Request) {
		show(w, http.StatusOK, content{AskCode: true, Code: r.URL.Query().Get("user_code"), Users: s.choices("")})
	})
	mux.HandleFunc("POST /devicelogin", func(w http.ResponseWriter, r *http.Request) {
		u, ok := s.user(r.PostFormValue("username"))
		if !ok {
			show(w, http.StatusBadRequest, content{Message: "There is no such user."})
			return
		}
		approved := r.PostFormValue("answer") == "yes"
		if !s.decide(r.PostFormValue("user_code"), u, approved) {
			show(w, http.StatusNotFound, content{Message: "That code is not known, has expired or was used. Ask your application for a new one."})
			return
		}
		message := "You have declined. You may close this page."
		if approved {
			message = "You are signed in. You may close this page and go back to your application."
		}
		show(w, http.StatusOK, content{Message: message})
	})
	return http.NewCrossOriginProtection().Handler(http.MaxBytesHandler(mux, 1<<16))
}

// decide answers the device code that a user typed in, in any case and with or
// without the dash.
func (s *Server) decide(userCode string, u User, approve bool) bool {
	plain := func(s string) string {
		return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(s))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		if plain(d.userCode) == plain(userCode) && d.user == "" && !d.declined && d.until.After(s.o.Now()) {
			if approve {
				d.user = u.Username
			} else {
				d.declined = true
			}
			return true
		}
	}
	return false
}

// authorizePage is where a browser lands for an authorization code.
func (s *Server) authorizePage(w http.ResponseWriter, r *http.Request, _ string) {
	s.count("authorize")
	if message := checkAuthorize(r.URL.Query()); message != "" {
		show(w, http.StatusBadRequest, content{Message: message})
		return
	}
	show(w, http.StatusOK, content{Users: s.choices(r.URL.Query().Get("login_hint"))})
}

// checkAuthorize finds what must not be answered by a redirect.
func checkAuthorize(q url.Values) string {
	to, err := url.Parse(q.Get("redirect_uri"))
	switch {
	case err != nil || (to.Scheme != "http" && to.Scheme != "https") || (to.Hostname() != "localhost" && to.Hostname() != "127.0.0.1"):
		return "AADSTS50011: The redirect URI must be on localhost."
	case q.Get("client_id") == "":
		return "AADSTS900144: The request must contain the parameter 'client_id'."
	case q.Get("response_type") != "code":
		return "AADSTS70005: Only the response type 'code' is supported."
	case !slices.Contains([]string{"", "query", "form_post"}, q.Get("response_mode")):
		return "AADSTS70007: Only the response modes 'query' and 'form_post' are supported."
	case !slices.Contains([]string{"", "S256", "plain"}, q.Get("code_challenge_method")):
		return "AADSTS501491: The code challenge method is not supported."
	}
	return ""
}

func (s *Server) authorize(w http.ResponseWriter, r *http.Request, tenant string) {
	q := r.URL.Query()
	if message := checkAuthorize(q); message != "" {
		show(w, http.StatusBadRequest, content{Message: message})
		return
	}
	back := url.Values{}
	if state := q.Get("state"); state != "" {
		back.Set("state", state)
	}
	if r.PostForm.Get("answer") != "yes" {
		back.Set("error", "access_denied")
		back.Set("error_description", "AADSTS65004: The user declined the sign-in.")
	} else if u, ok := s.user(r.PostForm.Get("username")); !ok {
		show(w, http.StatusBadRequest, content{Message: "There is no such user."})
		return
	} else {
		secret := "1." + random(48)
		s.mu.Lock()
		s.codes[secret] = &code{client: q.Get("client_id"), redirect: q.Get("redirect_uri"), tenant: tenant, user: u.Username,
			challenge: q.Get("code_challenge"), method: q.Get("code_challenge_method"), until: s.o.Now().Add(10 * time.Minute)}
		s.issued = append(s.issued, secret)
		s.mu.Unlock()
		back.Set("code", secret)
	}
	if q.Get("response_mode") == "form_post" {
		c := content{Callback: q.Get("redirect_uri")}
		for k := range back {
			c.Fields = append(c.Fields, field{k, back.Get(k)})
		}
		show(w, http.StatusOK, c)
		return
	}
	to, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		fail(w, err)
		return
	}
	params := to.Query()
	for k, v := range back {
		params[k] = v
	}
	to.RawQuery = params.Encode()
	http.Redirect(w, r, to.String(), http.StatusSeeOther)
}

// Approve does what the user does with a device code: it enters the code at the
// page and signs in as the user named username. It fails if the code is not
// known, has expired or was used, or if there is no such user. client is one of
// [Server.Client] or [NewClient].
func Approve(ctx context.Context, client *http.Client, page, userCode, username string) error {
	return enter(ctx, client, page, userCode, username, "yes")
}

// Decline is [Approve] by a user who declines the sign-in.
func Decline(ctx context.Context, client *http.Client, page, userCode, username string) error {
	return enter(ctx, client, page, userCode, username, "no")
}

func enter(ctx context.Context, client *http.Client, page, userCode, username, answer string) error {
	_, _, err := submit(ctx, client, page, url.Values{"user_code": {userCode}, "username": {username}, "answer": {answer}})
	return err
}

// submit posts a form, follows no redirect and returns the page.
func submit(ctx context.Context, client *http.Client, to string, form url.Values) (*http.Response, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	c := *client
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := c.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode >= 400 {
		err = fmt.Errorf("entratest: the page answered %s", res.Status)
	}
	return res, string(body), err
}

// Authorize does what the user does at the authorization URL: it signs in as the
// user named username, and returns the code in the redirect. The URL must ask for
// the response mode "query", as AuthCodeURL makes it.
func Authorize(ctx context.Context, client *http.Client, authURL, username string) (code string, err error) {
	res, _, err := submit(ctx, client, authURL, url.Values{"username": {username}, "answer": {"yes"}})
	if err != nil {
		return "", err
	}
	to, err := res.Location()
	if err != nil {
		return "", err
	}
	return to.Query().Get("code"), nil
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
var action = regexp.MustCompile(`<form method="post" action="([^"]*)">`)

// Browser returns a function for public.WithOpenURL that replaces the system's
// browser and its user: it signs in at the URL as the user named username, and
// takes the answer back to the program.
func Browser(client *http.Client, username string) func(authURL string) error {
	return func(authURL string) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		res, page, err := submit(ctx, client, authURL, url.Values{"username": {username}, "answer": {"yes"}})
		if err != nil {
			return err
		}
		// Of the response mode "query", as an address of AuthCodeURL asks for it.
		// AcquireTokenInteractive asks for "form_post".
		if to, err := res.Location(); err == nil {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
			if err != nil {
				return err
			}
			if res, err = client.Do(r); err != nil {
				return err
			}
			return res.Body.Close()
		}
		to := action.FindStringSubmatch(page)
		if to == nil {
			return errors.New("entratest: the page posts nothing back")
		}
		form := url.Values{}
		for _, f := range hidden.FindAllStringSubmatch(page, -1) {
			form.Set(html.UnescapeString(f[1]), html.UnescapeString(f[2]))
		}
		_, _, err = submit(ctx, client, html.UnescapeString(to[1]), form)
		return err
	}
}
