package main

import (
	"bytes"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// person is a browser without a screen: it keeps cookies and posts forms.
type person struct {
	t *testing.T
	c *http.Client
}

func newPerson(t *testing.T) person {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return person{t, &http.Client{Jar: jar}}
}

func (p person) read(res *http.Response, err error) string {
	p.t.Helper()
	require.NoError(p.t, err)
	defer res.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	require.NoError(p.t, err)
	return b.String()
}

func (p person) get(u string) string { p.t.Helper(); return p.read(p.c.Get(u)) }

func (p person) signIn(app, username string) string {
	p.t.Helper()
	res, err := p.c.Get(app + "/sign-in")
	p.read(res, err)
	return p.read(p.c.PostForm(res.Request.URL.String(), url.Values{"username": {username}, "answer": {"yes"}}))
}
