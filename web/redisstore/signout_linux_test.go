package redisstore_test

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/test/signout"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
)

// A sign-out sticks with the real MSAL client, whatever answers are under way.
func TestSignOutsStick(t *testing.T) {
	addr := servers.SharedRedis(t).Addr
	for _, p := range signout.Programs {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, servers.RedisClient(t, addr), &redisstore.Options{Prefix: rand.Text()})
			seed := mathrand.Uint64()
			open := func(partition string) (persistence.Persistence, error) { return s.Account("of " + partition), nil }
			if err := signout.Held(t, p, mathrand.New(mathrand.NewPCG(seed, 0)), open, nil); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		})
	}
}
