// Package once remembers what was said already, so that it is said once for each
// kind and not at every call.
package once

import "sync"

// Kinds are the kinds that were seen. The zero value is ready to use, and safe for
// concurrent use.
type Kinds struct {
	mu   sync.Mutex
	seen map[string]bool
}

// First reports whether this is the first of that kind.
func (k *Kinds) First(kind string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seen[kind] {
		return false
	}
	if k.seen == nil {
		k.seen = map[string]bool{}
	}
	k.seen[kind] = true
	return true
}
