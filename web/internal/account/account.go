// Package account makes a [persistence.Versioned] of one account's row in a
// server, out of conditional operations on rows. It does what all servers have in
// common: it obeys contexts whatever the driver does, checks keys and sizes, and its
// errors say what has happened to the row.
package account

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// MaxSize is the largest data, in bytes, of one account. Every server of this module
// takes that much with its usual settings.
const MaxSize = 8 << 20

// MaxKey is the longest key of an account, in bytes.
const MaxKey = 512

// Rows are the rows of a server, one per key. A revision of "" means that
// there is no row. Every method may block for longer than its context, unless
// Obeys says otherwise.
type Rows interface {
	Server
	// Get returns the row's revision, and its data if withData.
	Get(ctx context.Context, key string, withData bool) (data []byte, rev string, err error)
	// Put makes rev the row's revision and data its data if its revision is old, and
	// reports whether it has. It also returns true if the revision already is rev: a
	// driver may send a statement again if the answer was lost.
	Put(ctx context.Context, key string, data []byte, old, rev string) (bool, error)
	// Drop removes the row if its revision is old, and reports whether it has. old is
	// not "".
	Drop(ctx context.Context, key, old string) (bool, error)
	// Lease gives the lease of the row to owner for d, by the server's clock, unless
	// another owner has it, and reports whether owner has it. It also returns true if
	// there is no row.
	Lease(ctx context.Context, key, owner string, d time.Duration) (bool, error)
	// Release ends the lease if owner has it.
	Release(ctx context.Context, key, owner string) error
	// Describe says where the row of the key is.
	Describe(key string) persistence.Description
}

// Server is a server and its driver.
type Server interface {
	// Explain says in this module's terms what an error of the driver means.
	Explain(err error) Reason
	// Obeys reports whether the driver returns soon after a context has ended.
	Obeys() bool
}

// Reason is why an operation failed.
type Reason struct {
	Err    error  // without what a server may have quoted from the row
	Remedy string // a sentence for a person
	// Refused says that the operation certainly changed nothing.
	Refused bool
}

// Account is the row of one key.
type Account struct {
	rows Rows
	key  string
}

// New returns the account of a key. It does no I/O.
func New(rows Rows, key string) *Account { return &Account{rows, key} }

// Describe implements [persistence.Describer].
func (a *Account) Describe() persistence.Description { return a.rows.Describe(a.key) }

// Lease implements [persistence.Leaser].
func (a *Account) Lease(ctx context.Context, owner string, d time.Duration) (bool, error) {
	return call(ctx, a, "lease", func(ctx context.Context) (bool, error) { return a.rows.Lease(ctx, a.key, owner, d) })
}

// Release implements [persistence.Leaser].
func (a *Account) Release(ctx context.Context, owner string) error {
	_, err := call(ctx, a, "release", func(ctx context.Context) (bool, error) {
		return true, a.rows.Release(ctx, a.key, owner)
	})
	return err
}

// call makes a call of an operation that changes no data.
func call[T any](ctx context.Context, a *Account, op string, f func(context.Context) (T, error)) (none T, err error) {
	if err := a.check(op); err != nil {
		return none, err
	}
	if err := ctx.Err(); err != nil {
		return none, a.fail(op, err, "")
	}
	got, err := Within(ctx, a.rows, f)
	if err != nil {
		why := Explain(ctx, a.rows, err)
		return none, a.fail(op, why.Err, why.Remedy)
	}
	return got, nil
}

// Load implements [persistence.Persistence].
func (a *Account) Load(ctx context.Context) ([]byte, error) {
	data, _, err := a.LoadRevision(ctx)
	return data, err
}

// LoadRevision implements [persistence.Versioned].
func (a *Account) LoadRevision(ctx context.Context) ([]byte, string, error) {
	got, err := a.get(ctx, "load", true)
	if err == nil && got.rev == "" {
		err = a.fail("load", persistence.ErrNotFound, "")
	}
	if err != nil {
		return nil, "", err
	}
	if got.data == nil {
		got.data = []byte{}
	}
	return got.data, got.rev, nil
}

// Revision implements [persistence.Versioned].
func (a *Account) Revision(ctx context.Context) (string, error) {
	got, err := a.get(ctx, "revision", false)
	return got.rev, err
}

// SaveIf implements [persistence.Versioned].
func (a *Account) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	if len(data) > MaxSize {
		return "", a.fail("save", fmt.Errorf("%w: %d bytes; the maximum is %d; nothing was changed", persistence.ErrTooLarge, len(data), MaxSize),
			"Keep one account in each cache.")
	}
	// A driver may still send it when the caller has left and changes data.
	data = append(make([]byte, 0, len(data)), data...)
	now := rand.Text()
	err := a.change(ctx, "save", func(ctx context.Context) (bool, error) { return a.rows.Put(ctx, a.key, data, rev, now) })
	if err != nil {
		return "", err
	}
	return now, nil
}

// DeleteIf implements [persistence.Versioned].
func (a *Account) DeleteIf(ctx context.Context, rev string) error {
	return a.change(ctx, "delete", func(ctx context.Context) (bool, error) {
		if rev == "" {
			_, now, err := a.rows.Get(ctx, a.key, false)
			return now == "", err
		}
		return a.rows.Drop(ctx, a.key, rev)
	})
}

// Save implements [persistence.Persistence]. It is conditional as well, so
// that a Save whose caller gave up, and which arrives late, does not overwrite
// what was saved since.
func (a *Account) Save(ctx context.Context, data []byte) error {
	return a.untilNoConflict(ctx, "save", func(rev string) error {
		_, err := a.SaveIf(ctx, data, rev)
		return err
	})
}

// Delete implements [persistence.Persistence]. It is conditional, as Save is.
func (a *Account) Delete(ctx context.Context) error {
	return a.untilNoConflict(ctx, "delete", func(rev string) error {
		if rev == "" {
			return nil
		}
		return a.DeleteIf(ctx, rev)
	})
}

func (a *Account) untilNoConflict(ctx context.Context, op string, try func(rev string) error) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		got, err := a.get(ctx, op, false)
		if err == nil {
			err = try(got.rev)
		}
		if !errors.Is(err, persistence.ErrConflict) {
			return err
		}
		if Wait(ctx, wait) != nil {
			return a.fail(op, fmt.Errorf("%w: %w; nothing was changed", persistence.ErrConflict, ctx.Err()), "Another writer keeps changing the row; try again.")
		}
	}
}

type row struct {
	data []byte
	rev  string
}

func (a *Account) get(ctx context.Context, op string, withData bool) (row, error) {
	return call(ctx, a, op, func(ctx context.Context) (r row, err error) {
		r.data, r.rev, err = a.rows.Get(ctx, a.key, withData)
		return r, err
	})
}

func (a *Account) change(ctx context.Context, op string, f func(context.Context) (bool, error)) error {
	if err := a.check(op); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return a.fail(op, fmt.Errorf("%w; nothing was changed", err), "")
	}
	done, err := Within(ctx, a.rows, f)
	switch {
	case err != nil:
		why := Explain(ctx, a.rows, err)
		outcome := "whether it was done is not known"
		if why.Refused {
			outcome = "nothing was changed"
		}
		return a.fail(op, fmt.Errorf("%w; %s", why.Err, outcome), why.Remedy)
	case !done:
		return a.fail(op, persistence.ErrConflict, "Load it again, and apply the change to what is stored now.")
	}
	return nil
}

// Explain is r's Explain, but prefers the context's error: what a driver reports when
// its context ends is only a consequence.
func Explain(ctx context.Context, r Server, err error) Reason {
	switch ctxErr := ctx.Err(); {
	case errors.Is(ctxErr, context.DeadlineExceeded):
		return Reason{Err: fmt.Errorf("%w: no answer in time: %w", persistence.ErrUnavailable, ctxErr),
			Remedy: "See whether the server is up, reachable and not overloaded."}
	case ctxErr != nil:
		return Reason{Err: ctxErr}
	}
	return r.Explain(err)
}

func (a *Account) check(op string) error {
	switch {
	case a.key == "":
		return a.fail(op, errors.New("the account's key is empty"), "Name the account whose cache this is.")
	case len(a.key) > MaxKey:
		return a.fail(op, fmt.Errorf("the account's key has %d bytes; the maximum is %d", len(a.key), MaxKey), "Use a digest of it instead.")
	case !utf8.ValidString(a.key) || strings.ContainsRune(a.key, 0):
		return a.fail(op, errors.New("the account's key is not UTF-8 text without NUL"), "Use a digest of it instead.")
	}
	return nil
}

func (a *Account) fail(op string, err error, remedy string) error {
	d := a.Describe()
	return &persistence.Error{Op: op, Backend: d.Backend, Location: d.Location, Err: err, Remedy: remedy}
}

// Within returns what f returns, which calls the server's driver, or ctx's error once
// ctx has ended. Then f is left behind, so f must not use anything of its caller. A
// driver that obeys its context is called directly: under load, a goroutine for each
// call makes the slowest requests half as slow again.
func Within[T any](ctx context.Context, s Server, f func(context.Context) (T, error)) (T, error) {
	if s.Obeys() || ctx.Done() == nil {
		return f(ctx)
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		select {
		case r := <-done: // both have happened, and the answer is worth more
			return r.v, r.err
		default:
		}
		var none T
		return none, ctx.Err()
	}
}

// Wait waits for about d, or for ctx to end.
func Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + mathrand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var (
	_ persistence.Versioned = (*Account)(nil)
	_ persistence.Describer = (*Account)(nil)
	_ persistence.Leaser    = (*Account)(nil)
)
