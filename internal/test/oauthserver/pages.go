package oauthserver

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
)

var page = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Pretend sign-in</title></head>
<body style="font: 1.1em system-ui, sans-serif; max-width: 32em; margin: 3em auto">
<h1>Pretend sign-in</h1>
<p>This provider runs on your own machine. It has no passwords, and its tokens are worth nothing.</p>
<form method="post">
{{if .AskCode}}<p><label>The code that the program shows: <input name="user_code" value="{{.Code}}" autofocus></label></p>{{end}}
<p><label>Your name: <input name="username" value="alice"></label></p>
<p><button name="answer" value="yes">Sign in</button> <button name="answer" value="no">Decline</button></p>
</form></body></html>
`))

func (s *Server) showPage(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.URL.Path == "/authorize" {
		if err := checkAuthorize(q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	page.Execute(w, struct { //nolint:errcheck // the browser has gone
		AskCode bool
		Code    string
	}{r.URL.Path == "/device", q.Get("user_code")})
}

func (s *Server) devicePage(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		if d.user != "" || d.declined || !strings.EqualFold(d.userCode, r.PostFormValue("user_code")) || r.PostFormValue("username") == "" {
			continue
		}
		if r.PostFormValue("answer") == "yes" {
			d.user = r.PostFormValue("username")
		} else {
			d.declined = true
		}
		fmt.Fprintln(w, "Done. You may close this page and go back to the program.")
		return
	}
	http.Error(w, "That code is not known, or was used.", http.StatusNotFound)
}

// Approve does what a person does who was shown a device code: it enters the
// code at the page and signs in.
func Approve(ctx context.Context, page, userCode, username string) error {
	return submit(ctx, page, url.Values{"user_code": {userCode}, "username": {username}, "answer": {"yes"}})
}

// Decline is [Approve] by somebody who does not want to sign in.
func Decline(ctx context.Context, page, userCode, username string) error {
	return submit(ctx, page, url.Values{"user_code": {userCode}, "username": {username}, "answer": {"no"}})
}

// Browse does what a person does whose browser was sent to an authorization
// URL: it signs in, and follows the redirect back to the program.
func Browse(ctx context.Context, authURL, username string) error {
	return submit(ctx, authURL, url.Values{"username": {username}, "answer": {"yes"}})
}

func submit(ctx context.Context, to string, form url.Values) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode >= 400 {
		return fmt.Errorf("oauthserver: the page answered %s", res.Status)
	}
	return nil
}
