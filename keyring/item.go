package keyring

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"strings"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// An Option is a setting of [New].
type Option func(*options)

type options struct {
	lock  *persistence.FileLock
	limit int
}

// WithLock makes the writers of the item take turns by a lock that all
// processes share, and keeps the item's revision in a small file beside the
// lock file. What [New] returns is then a persistence.Versioned and a
// persistence.NamedLocker. Every program that writes the item must use the
// same lock file.
func WithLock(l *persistence.FileLock) Option {
	return func(o *options) { o.lock = l }
}

// WithItemLimit sets the size in bytes of the largest secret that the keyring
// takes, for one that is no [Limited] or knows it wrong. It must be 256 or
// more; 0 means that there is no limit.
func WithItemLimit(n int) Option {
	return func(o *options) { o.limit = n }
}

// New returns a Persistence that keeps its data in k, under the name of service
// and user. It does no I/O. Data may be any bytes.
//
// Data that is too large for an item is split over several: a manifest under
// that name, and parts whose user is the given one with " part a1", " part a2"
// or " part b1" and so on behind it. The parts of a new value are written
// first, beside those of the old one, then the manifest is switched, then the
// old parts are removed. So a reader, and whoever comes after a crash, sees the
// old value or the new one, whole; a digest in the manifest proves it. What a
// crash leaves over is removed by the next save or delete.
//
// With [WithLock] what it returns is a persistence.Versioned and a
// persistence.NamedLocker, ready for persistence.New. Without, it is a plain
// Persistence: saves of one process take turns, but two processes that save
// split data at once can leave a value that Load refuses with ErrCorrupt.
//
// Load returns ErrCorrupt for an item that another program has written or that
// is damaged, and ErrUnsupportedVersion for one of a newer tokenkeep, which Save
// and Delete leave alone. All else is the keyring's, see [System].
func New(k Keyring, service, user string, opts ...Option) (persistence.Persistence, error) {
	o := options{limit: -1}
	for _, opt := range opts {
		opt(&o)
	}
	err := checkName(service, user)
	switch {
	case err != nil:
	case k == nil:
		err = errors.New("the keyring is nil")
	case o.limit < 0:
		if l, ok := k.(Limited); ok {
			o.limit = l.ItemLimit(service, partUser(user, "b", math.MaxInt32))
		}
	}
	if err == nil && o.limit > 0 && o.limit < 256 {
		err = fmt.Errorf("items of this name may have only %d bytes", o.limit)
	}
	if err != nil {
		return nil, wrap("open", service, user, err)
	}
	s := &store{k: k, service: service, user: user, limit: max(o.limit, 0)}
	if o.lock != nil {
		return newLockedStore(s, o.lock), nil
	}
	return s, nil
}

// store is one value in a keyring.
type store struct {
	k             Keyring
	service, user string
	limit         int // 0: none
}

func (s *store) Describe() persistence.Description {
	return persistence.Description{Backend: "keyring", Location: location(s.service, s.user), Encrypted: true}
}

func (s *store) Load(ctx context.Context) ([]byte, error) {
	data, _, err := s.load(ctx)
	return data, s.wrap("load", err)
}

func (s *store) Save(ctx context.Context, data []byte) error {
	_, err := s.save(ctx, data, unconditional)
	return s.wrap("save", err)
}

func (s *store) Delete(ctx context.Context) error {
	return s.wrap("delete", s.remove(ctx, unconditional))
}

func (s *store) wrap(op string, err error) error { return wrap(op, s.service, s.user, err) }

// A manifest is the text of the main item:
//
//	tokenkeep-keyring/1 <revision> <digest> inline:<data>
//	tokenkeep-keyring/1 <revision> <digest> <slot>:<number of parts>
//
// The parts lie in one of two slots, "a" and "b", so that a new value never
// touches the old one. A part is the text "<revision> <data>". The items of a
// slot are always numbers 1 to some n without a gap: they are written upwards
// and deleted downwards. That is how leftovers are found in a keyring that
// cannot be searched.
//
// The digest is SHA-256 of the revision, a newline and the data. Revision (128
// random bits), digest and data are base64url without padding.
type manifest struct {
	rev, sum string
	slot     string // "": inline
	parts    int
	data     string // if inline
}

const (
	formatName = "tokenkeep-keyring/"
	format     = formatName + "1"
	maxParts   = 1 << 20
)

var coding = base64.RawURLEncoding.Strict()

func (m manifest) String() string {
	if m.slot == "" {
		return format + " " + m.rev + " " + m.sum + " inline:" + m.data
	}
	return format + " " + m.rev + " " + m.sum + " " + m.slot + ":" + strconv.Itoa(m.parts)
}

// parseManifest takes only what String writes.
func parseManifest(raw string) (m manifest, err error) {
	version, rest, _ := strings.Cut(raw, " ")
	if strings.HasPrefix(version, formatName) && version != format {
		return m, &advice{persistence.ErrUnsupportedVersion, "Update this program."}
	}
	foreign := fmt.Errorf("%w: the keyring item is not one of tokenkeep's", persistence.ErrCorrupt)
	if version != format {
		return m, foreign
	}
	fields := strings.Split(rest, " ")
	if len(fields) != 3 {
		return m, foreign
	}
	m.rev, m.sum = fields[0], fields[1]
	kind, value, _ := strings.Cut(fields[2], ":")
	switch kind {
	case "inline":
		m.data = value
	case "a", "b":
		m.slot = kind
		m.parts, err = strconv.Atoi(value)
		if err != nil || m.parts < 1 || m.parts > maxParts {
			return m, foreign
		}
	}
	if !isRevision(m.rev) || m.String() != raw {
		return m, foreign
	}
	return m, nil
}

func newRevision() string {
	random := make([]byte, 16)
	rand.Read(random)
	return coding.EncodeToString(random)
}

func isRevision(s string) bool {
	random, err := coding.DecodeString(s)
	return err == nil && len(random) == 16
}

func digest(rev string, data []byte) string {
	h := sha256.New()
	h.Write([]byte(rev + "\n"))
	h.Write(data)
	return coding.EncodeToString(h.Sum(nil))
}

func partUser(user, slot string, i int) string { return user + " part " + slot + strconv.Itoa(i) }

func otherSlot(slot string) string {
	if slot == "a" {
		return "b"
	}
	return "a"
}

// current returns the stored manifest. Where nothing is stored, rev is "" and
// err is ErrNotFound. An item that is no manifest has a revision all the same,
// so that it can be replaced on condition that it still is the same.
func (s *store) current(ctx context.Context) (m manifest, raw, rev string, err error) {
	raw, err = s.k.Get(ctx, s.service, s.user)
	if err != nil {
		return m, "", "", err
	}
	m, err = parseManifest(raw)
	if err != nil {
		sum := sha256.Sum256([]byte(raw))
		return m, raw, "bad:" + coding.EncodeToString(sum[:]), err
	}
	return m, raw, m.rev, nil
}

func (s *store) load(ctx context.Context) (data []byte, rev string, err error) {
	for before := ""; ; {
		m, raw, rev, err := s.current(ctx)
		if err != nil {
			return nil, rev, err
		}
		data, ok, err := s.assemble(ctx, m)
		if err != nil {
			return nil, rev, err
		}
		if ok {
			return data, rev, nil
		}
		// Parts of a value are removed only after the manifest has been
		// switched to another. So under the same manifest this is damage,
		// and otherwise somebody saved in between.
		if raw == before {
			return nil, rev, fmt.Errorf("%w: the keyring items do not fit together", persistence.ErrCorrupt)
		}
		before = raw
	}
}

// assemble returns the value of a manifest; ok is false if it is not, or no
// longer, there as the manifest says.
func (s *store) assemble(ctx context.Context, m manifest) (data []byte, ok bool, err error) {
	text := m.data
	if m.slot != "" {
		var b strings.Builder
		for i := 1; i <= m.parts; i++ {
			part, err := s.k.Get(ctx, s.service, partUser(s.user, m.slot, i))
			if errors.Is(err, persistence.ErrNotFound) {
				return nil, false, nil
			}
			if err != nil {
				return nil, false, err
			}
			rev, piece, _ := strings.Cut(part, " ")
			if rev != m.rev {
				return nil, false, nil
			}
			b.WriteString(piece)
		}
		text = b.String()
	}
	data, err = coding.DecodeString(text)
	if err != nil || subtle.ConstantTimeCompare([]byte(digest(m.rev, data)), []byte(m.sum)) == 0 {
		return nil, false, nil
	}
	return data, true, nil
}

// unconditional is the condition of a plain Save or Delete.
func unconditional(string) error { return nil }

// save stores data under a new revision. Before it changes anything it calls
// may with the stored revision.
func (s *store) save(ctx context.Context, data []byte, may func(rev string) error) (string, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	old, _, oldRev, err := s.current(ctx)
	if err != nil && !errors.Is(err, persistence.ErrNotFound) && !errors.Is(err, persistence.ErrCorrupt) {
		return "", err
	}
	if err := may(oldRev); err != nil {
		return "", err
	}
	m, parts := s.split(data, old.slot)
	for i, part := range parts {
		if err := s.k.Set(ctx, s.service, partUser(s.user, m.slot, i+1), part); err != nil {
			return "", note(err, "the value before is still stored")
		}
	}
	if err := s.switchTo(ctx, m, oldRev); err != nil {
		return "", err
	}
	// The value is stored. What cannot be removed now the next save removes.
	s.sweep(ctx, old, m)
	return m.rev, nil
}

// split makes the manifest and the parts of a new value.
func (s *store) split(data []byte, oldSlot string) (m manifest, parts []string) {
	m.rev = newRevision()
	m.sum = digest(m.rev, data)
	m.data = coding.EncodeToString(data)
	if s.limit == 0 || len(m.String()) <= s.limit {
		return m, nil
	}
	size := s.limit - len(m.rev) - 1
	for text := m.data; text != ""; {
		n := min(size, len(text))
		parts = append(parts, m.rev+" "+text[:n])
		text = text[n:]
	}
	m.slot, m.parts, m.data = otherSlot(oldSlot), len(parts), ""
	return m, parts
}

// switchTo makes m the stored manifest. If the keyring says that it did not, it
// looks what is there, since the call may have been carried out all the same.
func (s *store) switchTo(ctx context.Context, m manifest, oldRev string) error {
	err := s.k.Set(ctx, s.service, s.user, m.String())
	if err == nil {
		return nil
	}
	_, _, rev, lookErr := s.current(ctx)
	switch {
	case lookErr == nil && rev == m.rev:
		return nil
	case rev == oldRev && (rev != "" || errors.Is(lookErr, persistence.ErrNotFound)) && !errors.Is(err, context.DeadlineExceeded):
		return note(err, "the value before is still stored")
	}
	return note(err, "whether the value before or the new one is stored is not known")
}

// sweep removes all parts but those of now. Where values are never split it
// looks for none, unless the one before was.
func (s *store) sweep(ctx context.Context, old, now manifest) error {
	if s.limit == 0 && old.slot == "" {
		return nil
	}
	for _, slot := range []string{"a", "b"} {
		keep, last := 0, 0
		if slot == now.slot {
			keep, last = now.parts, now.parts
		} else if slot == old.slot {
			last = old.parts
		}
		for {
			_, err := s.k.Get(ctx, s.service, partUser(s.user, slot, last+1))
			if errors.Is(err, persistence.ErrNotFound) {
				break
			}
			if err != nil {
				return err
			}
			last++
		}
		for ; last > keep; last-- {
			err := s.k.Delete(ctx, s.service, partUser(s.user, slot, last))
			if err != nil && !errors.Is(err, persistence.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// remove deletes the value: the manifest first, so that no reader meets half.
func (s *store) remove(ctx context.Context, may func(rev string) error) error {
	done, err := s.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	old, _, rev, err := s.current(ctx)
	if err != nil && !errors.Is(err, persistence.ErrNotFound) && !errors.Is(err, persistence.ErrCorrupt) {
		return err
	}
	if err := may(rev); err != nil {
		return err
	}
	if rev != "" {
		if err := s.k.Delete(ctx, s.service, s.user); err != nil && !errors.Is(err, persistence.ErrNotFound) {
			return err
		}
	}
	return s.sweep(ctx, old, manifest{})
}

// turns order the writers of one item within the process. Items may share one.
var turns = func() (t [64]chan struct{}) {
	for i := range t {
		t[i] = make(chan struct{}, 1)
	}
	return t
}()

func (s *store) turn(ctx context.Context) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h := fnv.New32a()
	h.Write([]byte(s.service + "\x00" + s.user))
	t := turns[h.Sum32()%uint32(len(turns))]
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for another save: %w", ctx.Err())
	}
}
