package persistence

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/replica"
)

// DefaultMaxUnsaved is how many bytes of tokens that could not be stored a
// [Partitioned] keeps at most by default: those of about ten thousand accounts.
const DefaultMaxUnsaved = 64 << 20

// outboxTime is how long, at least, an outbox keeps the tokens of a user who does
// not come back. Tests shorten it.
var outboxTime = time.Hour

// outbox keeps the tokens of accounts that could not be stored, for the next
// client that comes for the account, and for Flush. It is safe for concurrent use.
type outbox struct {
	max int // bytes

	mu      sync.Mutex
	entries map[string]*outboxEntry // by partition
	size    int                     // of all entries, in bytes
}

// outboxEntry is what could not be stored of one partition. It never changes, so its
// address identifies it: an in-memory cache that was given the tokens of another entry
// than the current one must be given them again.
type outboxEntry struct {
	since  time.Time
	tokens *replica.Outstanding
	size   int
	line   *byte // the same of all entries that came one out of the other

	// stored is what has been stored of the entries that this one came out of, or
	// nil: somebody who knew one of those has stored it.
	stored *replica.Outstanding
}

// entryOverhead is about what an entry costs beyond its bytes.
const entryOverhead = 512

// outstanding returns the tokens of an entry that may be nil.
func (e *outboxEntry) outstanding() *replica.Outstanding {
	if e == nil {
		return nil
	}
	return e.tokens
}

// get returns the entry of the partition, or nil.
func (o *outbox) get(partition string) *outboxEntry {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.entries[partition]
}

// partitions returns the partitions that have an entry.
func (o *outbox) partitions() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.entries))
}

// count returns the number of entries and their size in bytes.
func (o *outbox) count() (entries, bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.entries), o.size
}

// put makes tokens the entry of the partition, if valid reports that they still are
// to be stored: no take comes between. They include those of known, which the caller
// has had; what else is there is added to them. It returns nil if they are not valid
// or there is no room.
func (o *outbox) put(partition string, known *outboxEntry, tokens *replica.Outstanding, valid func() bool) *outboxEntry {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !valid() {
		return nil
	}
	before := o.entries[partition]
	if before != nil && before != known {
		tokens = tokens.With(before.tokens)
	}
	e := &outboxEntry{since: time.Now(), tokens: tokens, line: new(byte)}
	grows := 0
	if before != nil {
		e.line, e.stored = before.line, before.stored
		if e.stored != nil && (known == nil || known.stored != e.stored) {
			e.tokens = tokens.After(e.stored)
		}
		grows -= before.size
	}
	e.size = e.tokens.Size() + len(partition) + entryOverhead
	grows += e.size
	if grows > 0 && o.size+grows > o.max {
		for other, old := range o.entries {
			if other != partition && time.Since(old.since) > outboxTime {
				o.drop(other)
			}
		}
		if o.size+grows > o.max {
			return nil
		}
	}
	if o.entries == nil {
		o.entries = map[string]*outboxEntry{}
	}
	o.entries[partition] = e
	o.size += grows
	return e
}

// drop removes the entry of the partition, if there is one. The caller has locked
// the outbox.
func (o *outbox) drop(partition string) *outboxEntry {
	e := o.entries[partition]
	if e != nil {
		o.size -= e.size
		delete(o.entries, partition)
	}
	return e
}

// settled reports whether e, which may be nil, is neither an entry of the partition
// nor contained in one: it was stored, or the user was signed out.
func (o *outbox) settled(partition string, e *outboxEntry) bool {
	now := o.get(partition)
	if now == nil || e == nil {
		return now != e
	}
	return now.line != e.line
}

// remove removes e, which may be nil: it was stored, or is settled otherwise. If the
// partition's entry came out of e, that stays, and knows that e is stored.
func (o *outbox) remove(partition string, e *outboxEntry) {
	if e == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.entries[partition]
	switch {
	case now == e:
		o.drop(partition)
	case now != nil && now.line == e.line:
		after := *now
		after.stored, after.tokens = e.tokens, now.tokens.After(e.tokens)
		after.size += after.tokens.Size() - now.tokens.Size()
		o.size += after.size - now.size
		o.entries[partition] = &after
	}
}

// storedSince returns what has been stored of e by others since the caller knew that
// before was, or nil.
func (o *outbox) storedSince(partition string, e *outboxEntry, before *replica.Outstanding) *replica.Outstanding {
	now := o.get(partition)
	if now == nil || e == nil || now.line != e.line || now.stored == before {
		return nil
	}
	return now.stored
}

// take removes whatever the partition has, and returns its tokens or nil.
func (o *outbox) take(partition string) *replica.Outstanding {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.drop(partition).outstanding()
}
