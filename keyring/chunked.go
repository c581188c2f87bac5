package keyring

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// chunked is one value in a keyring, in one item or split over several. Readers
// may be concurrent with a writer; writers must not be concurrent.
type chunked struct {
	k             Keyring
	service, user string
	limit         int // of an item; 0: none
}

// A manifest is the text of the main item:
//
//	tokenkeep-keyring/1 <revision> <digest> inline:<data>
//	tokenkeep-keyring/1 <revision> <digest> <slot>:<number of parts>
//
// The parts are in one of two slots, "a" and "b", so that a new value never
// overwrites the old one. A part is the text "<revision> <data>". The items of a
// slot are always numbered 1 to n without a gap, because they are written
// upwards and deleted downwards. So leftovers can be found in a keyring that
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

// parseManifest accepts only what String writes.
func parseManifest(raw string) (m manifest, err error) {
	version, rest, _ := strings.Cut(raw, " ")
	if strings.HasPrefix(version, formatName) && version != format {
		return m, remedy.With("Update this program.", persistence.ErrUnsupportedVersion)
	}
	foreign := fmt.Errorf("%w: the keyring item was not written by tokenkeep", persistence.ErrCorrupt)
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

// current returns the stored manifest. If nothing is stored, rev is "" and err is
// ErrNotFound. An item that is not a manifest has a revision, too, so that it
// can be replaced on condition that it has not changed.
func (c *chunked) current(ctx context.Context) (m manifest, raw, rev string, err error) {
	raw, err = c.k.Get(ctx, c.service, c.user)
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

func (c *chunked) load(ctx context.Context) (data []byte, rev string, err error) {
	for before := ""; ; {
		m, raw, rev, err := c.current(ctx)
		if err != nil {
			return nil, rev, err
		}
		data, ok, err := c.assemble(ctx, m)
		if err != nil {
			return nil, rev, err
		}
		if ok {
			return data, rev, nil
		}
		// Parts of a value are removed only after the manifest has changed. So
		// if the manifest is the same, the value is damaged; otherwise somebody
		// saved in between.
		if raw == before {
			return nil, rev, fmt.Errorf("%w: the keyring items do not fit together", persistence.ErrCorrupt)
		}
		before = raw
	}
}

// assemble returns the value of a manifest. ok reports whether the parts are
// there and match the manifest.
func (c *chunked) assemble(ctx context.Context, m manifest) (data []byte, ok bool, err error) {
	text := m.data
	if m.slot != "" {
		var b strings.Builder
		for i := 1; i <= m.parts; i++ {
			part, err := c.k.Get(ctx, c.service, partUser(c.user, m.slot, i))
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

// unconditional is the precondition of a plain Save or Delete.
func unconditional(string) error { return nil }

// save stores data under a new revision. Before it changes anything, it calls
// precondition with the stored revision and returns its error, if any.
func (c *chunked) save(ctx context.Context, data []byte, precondition func(rev string) error) (string, error) {
	old, _, oldRev, err := c.current(ctx)
	if err != nil && !errors.Is(err, persistence.ErrNotFound) && !errors.Is(err, persistence.ErrCorrupt) {
		return "", err
	}
	if err := precondition(oldRev); err != nil {
		return "", err
	}
	m, parts := c.split(data, old.slot)
	for i, part := range parts {
		if err := c.k.Set(ctx, c.service, partUser(c.user, m.slot, i+1), part); err != nil {
			return "", annotate(err, "the previous value is still stored")
		}
	}
	if err := c.switchTo(ctx, m, oldRev); err != nil {
		return "", err
	}
	// The value is stored. The next save removes what cannot be removed now.
	c.sweep(ctx, old, m)
	return m.rev, nil
}

// split makes the manifest and the parts of a new value.
func (c *chunked) split(data []byte, oldSlot string) (m manifest, parts []string) {
	m.rev = newRevision()
	m.sum = digest(m.rev, data)
	m.data = coding.EncodeToString(data)
	if c.limit == 0 || len(m.String()) <= c.limit {
		return m, nil
	}
	size := c.limit - len(m.rev) - 1
	for text := m.data; text != ""; {
		n := min(size, len(text))
		parts = append(parts, m.rev+" "+text[:n])
		text = text[n:]
	}
	m.slot, m.parts, m.data = otherSlot(oldSlot), len(parts), ""
	return m, parts
}

// switchTo makes m the stored manifest. If the keyring reports an error, it looks
// at what is stored, because the call may have been carried out.
func (c *chunked) switchTo(ctx context.Context, m manifest, oldRev string) error {
	err := c.k.Set(ctx, c.service, c.user, m.String())
	if err == nil {
		return nil
	}
	_, _, rev, lookErr := c.current(ctx)
	switch {
	case lookErr == nil && rev == m.rev:
		return nil
	case rev == oldRev && (rev != "" || errors.Is(lookErr, persistence.ErrNotFound)) && !errors.Is(err, context.DeadlineExceeded):
		return annotate(err, "the previous value is still stored")
	}
	return annotate(err, "it is not known whether the previous or the new value is stored")
}

// sweep removes all parts except those of now. If values are never split, it
// looks only for parts of old.
func (c *chunked) sweep(ctx context.Context, old, now manifest) error {
	if c.limit == 0 && old.slot == "" {
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
			_, err := c.k.Get(ctx, c.service, partUser(c.user, slot, last+1))
			if errors.Is(err, persistence.ErrNotFound) {
				break
			}
			if err != nil {
				return err
			}
			last++
		}
		for ; last > keep; last-- {
			err := c.k.Delete(ctx, c.service, partUser(c.user, slot, last))
			if err != nil && !errors.Is(err, persistence.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// remove deletes the value, the manifest first, so that no reader finds half of
// it. It calls precondition as save does.
func (c *chunked) remove(ctx context.Context, precondition func(rev string) error) error {
	old, _, rev, err := c.current(ctx)
	if err != nil && !errors.Is(err, persistence.ErrNotFound) && !errors.Is(err, persistence.ErrCorrupt) {
		return err
	}
	if err := precondition(rev); err != nil {
		return err
	}
	if rev != "" {
		if err := c.k.Delete(ctx, c.service, c.user); err != nil && !errors.Is(err, persistence.ErrNotFound) {
			return err
		}
	}
	return c.sweep(ctx, old, manifest{})
}
