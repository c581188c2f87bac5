package account

import "hash/fnv"

// Expiry returns when the row of a key expires that is used at the time now: after ttl,
// or up to a tenth of it later, all in seconds. It moves in steps of that tenth, at
// other times for each key, so that not all rows are renewed at once. While the expiry
// stays the same, a database has no work on its index.
func Expiry(key string, now, ttl int64) int64 {
	step := ttl / 10
	h := fnv.New32a()
	h.Write([]byte(key))
	own := int64(h.Sum32()) % step
	return (now+ttl+own)/step*step + step - own
}
