package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Vault stores a cache in a service that an organization runs, over HTTP. It is a
// persistence.Versioned: the service's entity tags (RFC 9110, section 8.8.3) are
// the revisions, and its preconditions (section 13.1) decide between writers. So
// it needs no lock. The comments of the interfaces say what each method does.
type Vault struct {
	URL    string
	Client *http.Client
}

var _ persistence.Versioned = Vault{}

// maxSize bounds what is read.
const maxSize = 64 << 20

// do makes a request and returns the body and the entity tag of a successful
// answer, otherwise an error of the right class.
func (v Vault) do(ctx context.Context, op, method string, body []byte, precondition ...string) ([]byte, string, error) {
	data, tag, err := v.request(ctx, method, body, precondition)
	if err != nil {
		e := &persistence.Error{Op: op, Backend: "vault", Location: v.URL, Err: err}
		if errors.Is(err, persistence.ErrUnavailable) {
			e.Remedy = "Try again later, or ask the administrators of the vault."
		}
		return nil, "", e
	}
	return data, tag, nil
}

func (v Vault) request(ctx context.Context, method string, body []byte, precondition []string) ([]byte, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, v.URL, bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	if len(precondition) == 2 {
		req.Header.Set(precondition[0], precondition[1])
	}
	res, err := v.Client.Do(req)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", persistence.ErrUnavailable, err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK, http.StatusNoContent:
		data, err := io.ReadAll(io.LimitReader(res.Body, maxSize+1))
		if err != nil { // never a part of a cache
			return nil, "", fmt.Errorf("%w: %w", persistence.ErrUnavailable, err)
		}
		if len(data) > maxSize {
			return nil, "", persistence.ErrTooLarge
		}
		return data, res.Header.Get("ETag"), nil
	case http.StatusNotFound:
		return nil, "", persistence.ErrNotFound
	case http.StatusPreconditionFailed:
		return nil, "", persistence.ErrConflict
	case http.StatusRequestEntityTooLarge:
		return nil, "", persistence.ErrTooLarge
	}
	return nil, "", fmt.Errorf("%w: the service answered %s", persistence.ErrUnavailable, res.Status)
}

func (v Vault) Load(ctx context.Context) ([]byte, error) {
	data, _, err := v.LoadRevision(ctx)
	return data, err
}

func (v Vault) Save(ctx context.Context, data []byte) error {
	_, _, err := v.do(ctx, "save", http.MethodPut, data)
	return err
}

func (v Vault) Delete(ctx context.Context) error {
	_, _, err := v.do(ctx, "delete", http.MethodDelete, nil)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil
	}
	return err
}

func (v Vault) Revision(ctx context.Context) (string, error) {
	_, tag, err := v.do(ctx, "revision", http.MethodHead, nil)
	if errors.Is(err, persistence.ErrNotFound) {
		return "", nil
	}
	return tag, err
}

func (v Vault) LoadRevision(ctx context.Context) ([]byte, string, error) {
	return v.do(ctx, "load", http.MethodGet, nil)
}

func (v Vault) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	header, value := "If-Match", rev
	if rev == "" {
		header, value = "If-None-Match", "*"
	}
	_, tag, err := v.do(ctx, "save", http.MethodPut, data, header, value)
	return tag, err
}

func (v Vault) DeleteIf(ctx context.Context, rev string) error {
	if rev == "" { // nothing must be there
		_, _, err := v.do(ctx, "delete", http.MethodDelete, nil, "If-None-Match", "*")
		if errors.Is(err, persistence.ErrNotFound) {
			return nil
		}
		return err
	}
	_, _, err := v.do(ctx, "delete", http.MethodDelete, nil, "If-Match", rev)
	return err
}

func (v Vault) Describe() persistence.Description {
	return persistence.Description{Backend: "vault", Location: v.URL}
}
