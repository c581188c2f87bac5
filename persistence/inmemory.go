package persistence

import (
	"bytes"
	"context"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"weak"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// inMemory is what a Cache remembers of one in-memory cache: an MSAL client's,
// as it comes to Replace and Export. Its fields belong to whoever has turn.
type inMemory struct {
	turn chan struct{}

	nameless bool // stands for all that cannot be told apart: base and revision are never known
	foreign  bool // refused an empty cache: not of the shared format, left alone for good
	met      bool // took an empty cache
	given    bool // was given what is stored, at least once

	base      []byte // what it was last given, or last gave: its own, to be written into
	baseKnown bool
	rev       string // the stored revision that base is of, where held
	held      bool

	pending []byte // what it gave and could not be stored; nil when there is none

	// gone are the accounts it held that were signed out since: true until an
	// Export hinted with the account was refused its entries, false until the
	// account signs in anew.
	gone map[tokencache.Account]bool
	// found are those that the last Replace found gone.
	found []tokencache.Account
	// refused are the accounts whose entries an Export was to leave out, while
	// the in-memory cache still has them.
	refused []tokencache.Account

	// public says that MSAL gave the hints of a public client; see hear.
	public   bool
	unhinted bool // the last call was a Replace without a hint

	accounts *accounts // where the in-memory cache is of a Partitioned
}

func newInMemory() *inMemory { return &inMemory{turn: make(chan struct{}, 1)} }

func (m *inMemory) acquire(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *inMemory) release() { <-m.turn }

// remember notes that the in-memory cache was given what is stored at rev.
func (m *inMemory) remember(data []byte, rev string) {
	m.refused = nil
	if m.nameless {
		return
	}
	m.given = true
	if m.baseKnown {
		m.found = signedOut(m.base, data)
		m.noteGone(m.found)
	}
	m.noteBack(data, func(tokencache.Account) bool { return true })
	m.base, m.baseKnown = data, true
	m.rev, m.held = rev, true
}

// gave notes that the in-memory cache holds ours and that this much is stored.
// rev is ours' own revision, or "" where others' entries were merged in;
// signedOut are the accounts that ours has lost since base. spare is what was
// stored before, which nobody needs any more.
func (m *inMemory) gave(ours []byte, rev string, signedOut []tokencache.Account, spare []byte) {
	m.pending, m.refused = nil, nil
	if m.nameless {
		return
	}
	if m.baseKnown {
		m.noteGone(signedOut)
	}
	m.base, m.baseKnown = keep(spare, ours), true
	m.rev, m.held = rev, rev != ""
}

// keep returns a copy of ours, in spare if it fits: the in-memory cache may
// marshal into the same bytes again.
func keep(spare, ours []byte) []byte {
	if cap(spare) < len(ours) {
		return bytes.Clone(ours)
	}
	return append(spare[:0], ours...)
}

func (m *inMemory) noteGone(accounts []tokencache.Account) {
	for _, a := range accounts {
		if m.gone == nil {
			m.gone = map[tokencache.Account]bool{}
		}
		if _, known := m.gone[a]; !known {
			m.gone[a] = true
		}
	}
}

// noteBack forgets the sign-outs of accounts that data has again and which of
// selects.
func (m *inMemory) noteBack(data []byte, of func(tokencache.Account) bool) {
	if len(m.gone) == 0 {
		return
	}
	back, err := accountsOf(data)
	if err != nil {
		return
	}
	for g := range m.gone {
		if of(g) && slices.ContainsFunc(back, func(a tokencache.Account) bool { return sameAccount(a, g) }) {
			delete(m.gone, g)
		}
	}
}

// hear learns from the hints which kind of client this in-memory cache is of.
// MSAL hints with the account's id when it refreshes silently. A confidential
// client does so too when a user signs in; a public client then gives no hint,
// and none when it lists its accounts. Only RemoveAccount is the same in both: a
// Replace and an Export without a hint, one right after the other.
func (m *inMemory) hear(export bool, hint string) {
	m.public = m.public || m.unhinted && !(export && hint == "")
	m.unhinted = !export && hint == ""
	if !export {
		m.found = nil
	}
}

// goneFor returns the accounts that an Export with this hint must not bring
// back: those that were signed out while a refresh was under way. A hinted
// Export of a public client is always a refresh's. That of a confidential client
// may be a new sign-in's, but not if the Replace right before it, with which
// MSAL goes on to write, was the one that found the account gone.
func (m *inMemory) goneFor(hint string) []tokencache.Account {
	accounts := slices.Clone(m.refused)
	if m.public {
		for a, unanswered := range m.gone {
			if unanswered && hinted(a, hint) {
				accounts = append(accounts, a)
			}
		}
		return accounts
	}
	for _, a := range m.found {
		if hinted(a, hint) {
			accounts = append(accounts, a)
		}
	}
	return accounts
}

// settle brings gone up to date after an Export of ours with this hint that
// left out the entries of the accounts in refused.
func (m *inMemory) settle(ours []byte, hint string, refused []tokencache.Account) {
	m.noteBack(ours, func(a tokencache.Account) bool {
		return (hint == "" || hinted(a, hint)) && !slices.Contains(refused, a)
	})
	if m.gone == nil && len(refused) > 0 { // they come from another in-memory cache of the account
		m.gone = map[tokencache.Account]bool{}
	}
	for _, a := range refused {
		m.gone[a] = false
	}
}

func hinted(a tokencache.Account, hint string) bool {
	return hint != "" && strings.EqualFold(a.HomeAccountID, hint)
}

func sameAccount(a, b tokencache.Account) bool {
	return strings.EqualFold(a.HomeAccountID, b.HomeAccountID) && strings.EqualFold(a.Environment, b.Environment)
}

// identity tells in-memory caches apart. The type belongs to it because a
// struct and its first field have one address.
type identity struct {
	at  weak.Pointer[byte]
	typ reflect.Type
}

// inMemoryOf finds or makes what c remembers of v. It remembers pointers, and
// only weakly: an in-memory cache that the program drops is forgotten. A
// pointer to a type of size zero is no identity, since all those may be equal.
func (c *Cache) inMemoryOf(v any) *inMemory {
	typ := reflect.TypeOf(v)
	if typ.Kind() != reflect.Pointer || typ.Elem().Size() == 0 {
		return c.nameless
	}
	p := (*byte)(reflect.ValueOf(v).UnsafePointer())
	id := identity{weak.Make(p), typ}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.inMemory[id]
	if !ok {
		m = newInMemory()
		c.inMemory[id] = m
		runtime.AddCleanup(p, forget, forgotten{weak.Make(c), id})
	}
	return m
}

type forgotten struct {
	cache weak.Pointer[Cache]
	id    identity
}

func forget(f forgotten) {
	if c := f.cache.Value(); c != nil {
		c.mu.Lock()
		delete(c.inMemory, f.id)
		c.mu.Unlock()
	}
}

func isNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan, reflect.Interface, reflect.UnsafePointer:
		return r.IsNil()
	}
	return false
}
