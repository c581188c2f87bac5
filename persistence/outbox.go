package persistence

import (
	"maps"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/replica"
)

// maxOutbox is of how many accounts an outbox keeps tokens.
const maxOutbox = 1024

// outboxTime is how long, at least, an outbox keeps the tokens of a user who does
// not come back. Tests shorten it.
var outboxTime = time.Hour

// outbox keeps the tokens of accounts that could not be stored, for the next
// client that comes for the account. It is safe for concurrent use.
type outbox struct {
	mu      sync.Mutex
	entries map[string]*outboxEntry // by partition
}

// outboxEntry is what could not be stored of one partition. It never changes, so
// it is known by its address: an in-memory cache that was given the tokens of
// another entry than the current one must be given them anew.
type outboxEntry struct {
	since  time.Time
	tokens *replica.Outstanding
}

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

// put makes tokens the entry of the partition. They include those of known, which
// the caller has had; what else is there is added to them. It returns nil if
// there is no room.
func (o *outbox) put(partition string, known *outboxEntry, tokens *replica.Outstanding) *outboxEntry {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.entries[partition]
	if before == nil && len(o.entries) >= maxOutbox {
		maps.DeleteFunc(o.entries, func(_ string, e *outboxEntry) bool { return time.Since(e.since) > outboxTime })
		if len(o.entries) >= maxOutbox {
			return nil
		}
	}
	if before != nil && before != known {
		tokens = tokens.With(before.tokens)
	}
	if o.entries == nil {
		o.entries = map[string]*outboxEntry{}
	}
	e := &outboxEntry{since: time.Now(), tokens: tokens}
	o.entries[partition] = e
	return e
}

// remove removes the entry, if it is still that of the partition.
func (o *outbox) remove(partition string, e *outboxEntry) {
	if e == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries[partition] == e {
		delete(o.entries, partition)
	}
}

// take removes whatever the partition has, and returns its tokens or nil.
func (o *outbox) take(partition string) *replica.Outstanding {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.entries[partition]
	delete(o.entries, partition)
	return e.outstanding()
}
