package tokenkeep

import "testing"

// WithoutDPAPI makes Open do, until the test ends, what it does where DPAPI
// cannot be used.
func WithoutDPAPI(t testing.TB) {
	before := hasDPAPI
	t.Cleanup(func() { hasDPAPI = before })
	hasDPAPI = false
}
