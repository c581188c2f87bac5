package persistence

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/follow"
	"github.com/tokenkeep/tokenkeep/internal/quote"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/within"
)

// Neighbour is the token cache of another program, for [WithFollow]. Package interop
// has some. Its methods are those of [Versioned] that only read: what they return
// is a token cache in MSAL Go's keys, and LoadRevision fails with ErrNotFound where
// nothing is stored. They must be safe for concurrent use.
type Neighbour interface {
	Describer
	Revision(ctx context.Context) (string, error)
	LoadRevision(ctx context.Context) (data []byte, rev string, err error)
}

// WithFollow shows what neighbours have beside what the cache itself has, so that a
// sign-in in another program is one here. Neighbours are never written. What comes
// of a refresh here is stored in the cache itself.
//
// A sign-out over there removes the account here too, with what was stored of it here
// since. The account stays if this program's user signed in here first, or with another
// client id. A sign-out here hides the account and changes nothing over there. It stays
// hidden, also after a restart and whatever changes over there, until the user signs in
// again here.
//
// Only sign-ins with Microsoft Entra ID are shown, by the hosts of its clouds:
// another authority may let a refresh token be used only once, and a refresh here
// would sign the user out over there. If there are other sign-ins, that is logged. A
// neighbour that cannot be read, or does not answer within two seconds, counts as
// empty, and that is logged too: what was stored of its accounts here is kept, but not
// shown meanwhile. One that did not answer is asked again after a minute. Neighbours are
// not locked, so a change over there may show only at the next call.
//
// Programs that share a cache should follow the same neighbours: another one sees
// neither the neighbours nor what is hidden of them. [Cache.Backend] is the cache's
// own backend, and [Move] moves what that has. [NewPartitioned] refuses this option.
func WithFollow(neighbours ...Neighbour) Option {
	return func(s *settings) error {
		for _, n := range neighbours {
			if isNil(n) {
				return errors.New("a neighbour to follow is nil")
			}
		}
		s.follow = append(s.follow, neighbours...)
		return nil
	}
}

// followed is a backend that shows neighbours beside what it has itself.
type followed struct {
	own    Versioned
	theirs []Neighbour
	settings

	mu    sync.Mutex
	rests []time.Time // until when each neighbour is not asked, because it did not answer
}

// lookTime bounds how long one look at a neighbour takes. A neighbour that took longer
// counts as empty for restTime, and is not asked.
const (
	lookTime = 2 * time.Second
	restTime = time.Minute
)

var errRests = errors.New("it did not answer a moment ago")

// ask calls call to ask the neighbour i, unless that did not answer a while ago.
func (f *followed) ask(ctx context.Context, i int, call func(context.Context, Neighbour) error) error {
	f.mu.Lock()
	rests := f.now().Before(f.rests[i])
	f.mu.Unlock()
	if rests {
		return errRests
	}
	bounded, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	err := call(bounded, f.theirs[i])
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		f.mu.Lock()
		f.rests[i] = f.now().Add(restTime)
		f.mu.Unlock()
	}
	return err
}

func (f *followed) ownBackend() Versioned { return f.own }

// purgeTime bounds how long a load waits to remove what has ended over there.
const purgeTime = time.Second

// theirs is what the neighbours have.
type theirs struct {
	doc    *tokencache.Doc
	revs   []string
	unread bool
}

// look reads the neighbours.
func (f *followed) look(ctx context.Context) (theirs, error) {
	var t theirs
	var docs []*tokencache.Doc
	for i, n := range f.theirs {
		var data []byte
		var rev string
		err := f.ask(ctx, i, func(ctx context.Context, n Neighbour) (err error) {
			data, rev, err = n.LoadRevision(ctx)
			return err
		})
		var doc *tokencache.Doc
		if errors.Is(err, ErrNotFound) {
			data, rev, err = nil, "", nil
		}
		if err == nil {
			if doc, err = tokencache.Parse(tokencache.Trim(data)); err != nil {
				err = fmt.Errorf("%w: it is not a token cache", ErrCorrupt)
			}
		}
		if err != nil {
			if err := f.unreadable(ctx, n, err); err != nil {
				return theirs{}, err
			}
			t.unread = true
			rev = ""
		} else {
			f.strangers(n, doc)
			docs = append(docs, doc)
		}
		t.revs = append(t.revs, rev)
	}
	t.doc = follow.Together(docs, f.now())
	return t, nil
}

// unreadable logs that a neighbour cannot be read, unless the caller's context has
// ended.
func (f *followed) unreadable(ctx context.Context, n Neighbour, err error) error {
	d := n.Describe()
	if ctx.Err() != nil {
		return failure(d, "load", ctx.Err(), "")
	}
	f.report(d, "follow: "+d.Location, "tokenkeep: cannot read the token cache of another program; going on without it", err)
	return nil
}

// strangers logs which sign-ins of a neighbour are not shown.
func (f *followed) strangers(n Neighbour, doc *tokencache.Doc) {
	if not, _ := follow.Strangers(doc); len(not) > 0 {
		d := n.Describe()
		for i := range not {
			not[i] = quote.Text(not[i])
		}
		f.report(d, "strangers: "+d.Location, "tokenkeep: sign-ins of another program are left out, because only those with Microsoft Entra ID can be followed: "+strings.Join(not, ", "), nil)
	}
}

// revision returns the revision of both, which is "" if both are. Where the
// neighbours have nothing it is own's.
func (t theirs) revision(own string) string {
	if !slices.ContainsFunc(t.revs, func(r string) bool { return r != "" }) {
		return own
	}
	h := sha256.New()
	for _, r := range append([]string{own}, t.revs...) {
		fmt.Fprintf(h, "%d %s", len(r), r)
	}
	return "follow " + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func (f *followed) Revision(ctx context.Context) (string, error) {
	own, err := f.own.Revision(ctx)
	if err != nil {
		return "", err
	}
	var t theirs
	for i, n := range f.theirs {
		var rev string
		err := f.ask(ctx, i, func(ctx context.Context, n Neighbour) (err error) {
			rev, err = n.Revision(ctx)
			return err
		})
		if err != nil {
			if err := f.unreadable(ctx, n, err); err != nil {
				return "", err
			}
			rev = ""
		}
		t.revs = append(t.revs, rev)
	}
	return t.revision(own), nil
}

func (f *followed) Load(ctx context.Context) ([]byte, error) {
	data, _, err := f.LoadRevision(ctx)
	return data, err
}

// both is what own and the neighbours have.
type both struct {
	follow.Sides
	data   []byte // own's, as it is
	rev    string // own's; "" if nothing is stored
	theirs theirs
	cache  bool // own's data is a token cache, or nothing
}

func (f *followed) load(ctx context.Context) (both, error) {
	data, rev, err := f.own.LoadRevision(ctx)
	if errors.Is(err, ErrNotFound) {
		data, rev, err = nil, "", nil
	}
	if err != nil {
		return both{}, err
	}
	t, err := f.look(ctx)
	if err != nil {
		return both{}, err
	}
	own, err := tokencache.Parse(tokencache.Trim(data))
	b := both{data: data, rev: rev, theirs: t, cache: err == nil}
	b.Sides = follow.Sides{Own: own, Theirs: t.doc, Unread: t.unread, Now: f.now()}
	return b, nil
}

// plain reports whether what is stored is shown as it is.
func (b *both) plain() bool { return !b.cache || b.Alone() }

// LoadRevision also removes from own what has ended over there. If that fails, the next
// save does it.
func (f *followed) LoadRevision(ctx context.Context) ([]byte, string, error) {
	b, err := f.load(ctx)
	if err != nil {
		return nil, "", err
	}
	rev := b.theirs.revision(b.rev)
	switch {
	case rev == "":
		return nil, "", f.fail("load", ErrNotFound)
	case b.plain() && b.rev != "":
		return b.data, rev, nil
	}
	view := b.View()
	if len(view) == 0 {
		view = []byte("{}")
	}
	if _, digests := f.own.(digestVersioned); !digests { // whose callers hold a lock
		if rest, purged := b.Purge(); purged {
			bounded, cancel := context.WithTimeout(ctx, purgeTime)
			defer cancel()
			if now, err := f.own.SaveIf(bounded, rest, b.rev); err == nil {
				rev = b.theirs.revision(now)
			}
		}
	}
	return view, rev, nil
}

func (f *followed) Save(ctx context.Context, data []byte) error {
	return f.untilSaved(ctx, "save", func() error {
		rev, err := f.Revision(ctx)
		if err == nil {
			_, err = f.SaveIf(ctx, data, rev)
		}
		return err
	})
}

// untilSaved repeats try until it meets no conflict.
func (f *followed) untilSaved(ctx context.Context, op string, try func() error) error {
	err, ended := within.Retry(ctx, func(err error) bool { return errors.Is(err, ErrConflict) }, try)
	if ended {
		return f.fail(op, fmt.Errorf("%w: %w", ErrConflict, ctx.Err()))
	}
	return err
}

// SaveIf stores in own what belongs there of the view data. If the view then differs from
// data, the revision that SaveIf returns is not the stored one, so that its caller loads
// again.
func (f *followed) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	b, err := f.load(ctx)
	if err != nil {
		return "", err
	}
	if b.theirs.revision(b.rev) != rev {
		return "", f.fail("save", ErrConflict)
	}
	if !b.cache { // it is replaced
		if b.Own, err = tokencache.Parse(nil); err != nil {
			return "", f.fail("save", err)
		}
	}
	view, err := tokencache.Parse(tokencache.Trim(data))
	if err != nil || b.Alone() {
		now, err := f.own.SaveIf(ctx, data, b.rev)
		return b.theirs.revision(now), err
	}
	now := b.rev
	rest := b.Put(view)
	if b.rev == "" && len(rest) <= len("{}") {
		rest = nil
	}
	if len(rest) > 0 && (!b.cache || string(rest) != string(b.Own.Data())) {
		if now, err = f.own.SaveIf(ctx, rest, b.rev); err != nil {
			return "", err
		}
	}
	after := b.Sides
	stored := b.theirs.revision(now)
	if after.Own, err = tokencache.Parse(rest); err != nil {
		return stored + "?", nil
	}
	if shown, err := tokencache.Parse(after.View()); err != nil || !tokencache.Equal(shown, view) {
		return stored + "?", nil
	}
	return stored, nil
}

// Delete removes what own has and hides what the neighbours have. Own need not be
// readable: then what was hidden of accounts that are not there now is forgotten.
func (f *followed) Delete(ctx context.Context) error {
	return f.untilSaved(ctx, "delete", func() error {
		b, err := f.load(ctx)
		if err == nil && b.cache {
			return f.replaceByHidden(ctx, b)
		}
		t, err := f.look(ctx)
		if err != nil {
			return err
		}
		hidden := follow.Sides{Theirs: t.doc, Unread: t.unread, Now: f.now()}.OnlyHidden()
		if err := f.own.Delete(ctx); err != nil || len(hidden) == 0 {
			return err
		}
		_, err = f.own.SaveIf(ctx, hidden, "")
		return err
	})
}

func (f *followed) DeleteIf(ctx context.Context, rev string) error {
	b, err := f.load(ctx)
	if err != nil {
		return err
	}
	if b.theirs.revision(b.rev) != rev {
		return f.fail("delete", ErrConflict)
	}
	return f.replaceByHidden(ctx, b)
}

// replaceByHidden leaves nothing in own but what it hides of the neighbours. It does
// so at once: a process that is killed in between would show their accounts again.
func (f *followed) replaceByHidden(ctx context.Context, b both) error {
	hidden := b.OnlyHidden()
	if len(hidden) == 0 {
		return f.own.DeleteIf(ctx, b.rev)
	}
	_, err := f.own.SaveIf(ctx, hidden, b.rev)
	if err != nil && !errors.Is(err, ErrConflict) && b.rev != "" {
		// On a full disk, for example. The tokens are removed all the same.
		return errors.Join(err, f.own.DeleteIf(ctx, b.rev))
	}
	return err
}

// setAsideFollowed is a followed whose backend can set data aside.
type setAsideFollowed struct{ *followed }

// followOn returns own with neighbours.
func (s settings) followOn(own Versioned) Versioned {
	f := &followed{own: own, theirs: s.follow, settings: s, rests: make([]time.Time, len(s.follow))}
	if _, ok := own.(SetAsider); ok {
		return setAsideFollowed{f}
	}
	return f
}

// SetAside is that of own.
func (f setAsideFollowed) SetAside(ctx context.Context, rev string) (newPath string, err error) {
	own, err := f.own.Revision(ctx)
	if err != nil {
		return "", err
	}
	t, err := f.look(ctx)
	if err != nil {
		return "", err
	}
	if t.revision(own) != rev {
		return "", f.fail("set aside", ErrConflict)
	}
	return f.own.(SetAsider).SetAside(ctx, own)
}

// Describe describes own.
func (f *followed) Describe() Description { return Describe(f.own) }

func (f *followed) fail(op string, err error) error { return failure(f.Describe(), op, err, "") }
