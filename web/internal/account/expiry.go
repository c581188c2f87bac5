package account

import "hash/fnv"

// Expiry is when the row of a key expires that was used at the time now: after
// ttl, and up to a tenth of it later, all in seconds. It moves in steps of that
// tenth, for each key at times of its own, so that not all rows are renewed at
// once. An expiry that stays what it is spares a database the work on its index.
func Expiry(key string, now, ttl int64) int64 {
	step := ttl / 10
	h := fnv.New32a()
	h.Write([]byte(key))
	own := int64(h.Sum32()) % step
	return (now+ttl+own)/step*step + step - own
}
