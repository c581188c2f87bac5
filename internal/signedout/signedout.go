// Package signedout lets package tokensource ask a persistence.Cache whether this
// process has signed everybody out. The store does not show that where nothing was
// stored.
package signedout

// Everybody returns a number that changes whenever everything in the cache, which is a
// *persistence.Cache, is about to be removed by it. Package persistence sets Everybody.
var Everybody func(cache any) uint64
