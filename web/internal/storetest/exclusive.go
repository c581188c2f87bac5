package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// OneRefresh checks that of 64 requests of one user, on two servers and with a
// token that has expired, one refreshes it. open opens the store for a server. The
// control is the same store without its leases.
func OneRefresh(t *testing.T, open func(t *testing.T) func(key string) persistence.Versioned) {
	const requests = 64
	for name, leases := range map[string]bool{"with leases": true, "without leases, the control": false} {
		t.Run(name, func(t *testing.T) {
			user := fmt.Sprint("refreshed ", leases)
			var memory tokens
			memory.set(user, time.Now())
			data, err := memory.Marshal()
			require.NoError(t, err)
			require.NoError(t, open(t)(user).Save(t.Context(), data))

			var refreshes atomic.Int64
			both := make(chan struct{})
			request := func(ctx context.Context, p *persistence.Partitioned) error {
				return p.Exclusive(ctx, user, func(ctx context.Context) error {
					var memory tokens
					if err := p.Replace(ctx, &memory, cache.ReplaceHints{PartitionKey: user}); err != nil {
						return err
					}
					if memory.good() {
						return nil
					}
					if refreshes.Add(1) == 2 {
						close(both)
					}
					if !leases {
						<-both // nothing keeps the other server from coming too
					}
					memory.set(user, time.Now().Add(time.Hour))
					return p.Export(ctx, &memory, cache.ExportHints{PartitionKey: user})
				})
			}
			var wg sync.WaitGroup
			for range 2 {
				account := open(t)
				p, err := persistence.NewPartitioned(func(_ context.Context, key string) (persistence.Persistence, error) {
					if leases {
						return account(key), nil
					}
					return struct{ persistence.Versioned }{account(key)}, nil
				})
				require.NoError(t, err)
				for range requests / 2 {
					wg.Go(func() {
						if err := request(t.Context(), p); err != nil {
							t.Error(err)
						}
					})
				}
			}
			wg.Wait()
			if leases {
				require.Equal(t, int64(1), refreshes.Load())
			} else {
				require.Equal(t, int64(2), refreshes.Load(), "one on each server")
			}
		})
	}
}

const anyToken = "accesstoken"

// set makes the memory hold an access token that expires at a time.
func (k *tokens) set(user string, expires time.Time) {
	k.entries = map[string]json.RawMessage{
		anyToken: json.RawMessage(fmt.Sprintf(`{"home_account_id":%q,"secret":"s","cached_at":"%d","expires_on":"%d"}`, user, time.Now().Unix(), expires.Unix())),
	}
}

// good reports whether the token is good for a while.
func (k *tokens) good() bool {
	var e struct {
		ExpiresOn int64 `json:"expires_on,string"`
	}
	return json.Unmarshal(k.entries[anyToken], &e) == nil && e.ExpiresOn > time.Now().Add(10*time.Minute).Unix()
}
