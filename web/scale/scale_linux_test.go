package scale

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	row "github.com/tokenkeep/tokenkeep/web/internal/account"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
)

// template is the token cache of an account that is called ACCOUNT, of about
// 2 KB: an account, an access token, a refresh token.
var template = strings.NewReplacer("BLOB", random(900), "\n", "").Replace(`{
"Account":{"ACCOUNT-login.example-utid":{"home_account_id":"ACCOUNT","environment":"login.example","realm":"utid","local_account_id":"uid","username":"user@example.com","authority_type":"MSSTS"}},
"AccessToken":{"ACCOUNT-login.example-accesstoken-app-utid-user.read":{"home_account_id":"ACCOUNT","environment":"login.example","realm":"utid","credential_type":"AccessToken","client_id":"app","target":"User.Read","cached_at":"1700000000","expires_on":"1700003600","secret":"BLOB"}},
"RefreshToken":{"ACCOUNT-login.example-refreshtoken-app--":{"home_account_id":"ACCOUNT","environment":"login.example","credential_type":"RefreshToken","client_id":"app","secret":"BLOB"}}}`)

// random returns text that, like a token, cannot be compressed.
func random(size int) string {
	b := make([]byte, size*3/4)
	rand.NewChaCha8([32]byte{}).Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

func account(n int) string  { return fmt.Sprintf("user%d.utid", n) }
func tokensOf(n int) string { return strings.ReplaceAll(template, "ACCOUNT", account(n)) }

// memory is the in-memory cache of a client that lives for one request.
type memory struct{ data []byte }

func (m *memory) Unmarshal(b []byte) error { m.data = bytes.Clone(b); return nil }
func (m *memory) Marshal() ([]byte, error) { return bytes.Clone(m.data), nil }

var refreshes int64

// renew is what a silent refresh does to the memory. No two are of one second.
func (m *memory) renew() {
	refreshes++
	i := bytes.Index(m.data, []byte(`"cached_at":"`)) + len(`"cached_at":"`)
	copy(m.data[i:], fmt.Sprint(1_700_000_000+refreshes))
}

// counted counts the calls that reach the store: the round trips, but for the
// reads that start a time to live anew.
type counted struct {
	persistence.Versioned
	n *atomic.Int64
}

func (c counted) Revision(ctx context.Context) (string, error) {
	c.n.Add(1)
	return c.Versioned.Revision(ctx)
}

func (c counted) LoadRevision(ctx context.Context) ([]byte, string, error) {
	c.n.Add(1)
	return c.Versioned.LoadRevision(ctx)
}

func (c counted) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	c.n.Add(1)
	return c.Versioned.SaveIf(ctx, data, rev)
}

// measured is what requests cost.
type measured struct {
	accounts        int
	replace, export time.Duration // medians
	trips           float64       // per request
	heap            uint64        // of the app, in bytes, when all requests have been served
}

// serve serves requests of accounts chosen at random, each with a client of
// its own, as an app does that has been running for a while.
func serve(t *testing.T, p *persistence.Partitioned, trips *atomic.Int64, accounts, requests int) measured {
	t.Helper()
	var replace, export []time.Duration
	request := func() {
		n := rand.IntN(accounts)
		var m memory
		start := time.Now()
		require.NoError(t, p.Replace(t.Context(), &m, cache.ReplaceHints{PartitionKey: account(n)}))
		loaded := time.Now()
		require.Contains(t, string(m.data), account(n))
		m.renew()
		ready := time.Now()
		require.NoError(t, p.Export(t.Context(), &m, cache.ExportHints{PartitionKey: account(n)}))
		replace, export = append(replace, loaded.Sub(start)), append(export, time.Since(ready))
	}
	for range requests / 10 {
		request()
	}
	replace, export = replace[:0], export[:0]
	trips.Store(0)
	for range requests {
		request()
	}
	perRequest := float64(trips.Load()) / float64(requests)
	median := func(d []time.Duration) time.Duration { slices.Sort(d); return d[len(d)/2] }
	m := measured{accounts, median(replace), median(export), perRequest, 0}
	replace, export = nil, nil
	var stats runtime.MemStats
	for range 3 { // in-memory caches are forgotten by the collector, in steps
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	m.heap = stats.HeapAlloc
	return m
}

// testScale fills a store with few accounts, then with many, and measures each
// time. What a request costs in time is printed, and decides nothing.
func testScale(t *testing.T, name string, store func(key string) persistence.Versioned, fill func(from, to int)) {
	few, many, requests := 100, 2_000, 500
	if os.Getenv("TOKENKEEP_LONG") == "1" {
		few, many, requests = 1_000, 1_000_000, 10_000
	}
	var trips atomic.Int64
	p, err := persistence.NewPartitioned(func(_ context.Context, key string) (persistence.Persistence, error) {
		return counted{store(key), &trips}, nil
	}, persistence.WithStrict())
	require.NoError(t, err)
	fill(0, few)
	a := serve(t, p, &trips, few, requests)
	fill(few, many)
	b := serve(t, p, &trips, many, requests)

	require.Equal(t, a.trips, b.trips, "a request asks the store as often")
	require.LessOrEqual(t, b.trips, 4.0)
	require.Less(t, b.heap, a.heap+2<<20, "the app keeps nothing of the accounts")
	out := fmt.Sprintf("\n| %s | %d accounts | %d accounts | ratio |\n|---|---|---|---|\n", name, a.accounts, b.accounts)
	row := func(what string, x, y, ratio any) { out += fmt.Sprintf("| %s | %v | %v | %.2f |\n", what, x, y, ratio) }
	row("Replace", a.replace.Round(time.Microsecond), b.replace.Round(time.Microsecond), float64(b.replace)/float64(a.replace))
	row("Export", a.export.Round(time.Microsecond), b.export.Round(time.Microsecond), float64(b.export)/float64(a.export))
	row("round trips of both", a.trips, b.trips, b.trips/a.trips)
	row("heap of the app, MB", fmt.Sprintf("%.1f", float64(a.heap)/1e6), fmt.Sprintf("%.1f", float64(b.heap)/1e6), float64(b.heap)/float64(a.heap))
	t.Log(out)
}

func TestRedis(t *testing.T) {
	client := servers.StartRedis(t, "save", `""`).Client(func(o *redis.Options) { o.ReadTimeout = time.Minute })
	s, err := redisstore.New(client, nil)
	require.NoError(t, err)
	testScale(t, "Redis", s.Account, func(from, to int) {
		for from < to {
			pipe := client.Pipeline()
			for end := min(from+1000, to); from < end; from++ {
				key := redisstore.DefaultPrefix + account(from)
				pipe.HSet(t.Context(), key, "revision", fmt.Sprint("rev", from), "data", tokensOf(from))
				pipe.PExpire(t.Context(), key, redisstore.DefaultTTL)
			}
			_, err := pipe.Exec(t.Context())
			require.NoError(t, err)
		}
		require.Equal(t, int64(to), client.DBSize(t.Context()).Val())
	})
}

func TestPostgreSQL(t *testing.T) {
	db := servers.StartPostgres(t).DB("postgres")
	s, err := sqlstore.New(db, sqlstore.PostgreSQL, nil)
	require.NoError(t, err)
	require.NoError(t, s.Migrate(t.Context()))
	testScale(t, "PostgreSQL", s.Account, func(from, to int) {
		now, ttl := time.Now().Unix(), int64(sqlstore.DefaultTTL/time.Second)
		for from < to {
			var numbers, expires []int64
			for end := min(from+20_000, to); from < end; from++ {
				numbers, expires = append(numbers, int64(from)), append(expires, row.Expiry(account(from), now, ttl))
			}
			exec(t, db, `INSERT INTO tokenkeep_accounts
				SELECT 'user' || n || '.utid', 'rev' || n, convert_to(replace($1, 'ACCOUNT', 'user' || n || '.utid'), 'UTF8'), expires
				FROM unnest($2::bigint[], $3::bigint[]) AS u (n, expires)`, template, numbers, expires)
		}
		// What loading left to do is not to be measured.
		exec(t, db, `VACUUM ANALYZE tokenkeep_accounts`)
		exec(t, db, `CHECKPOINT`)
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT count(*) FROM tokenkeep_accounts`).Scan(&n))
		require.Equal(t, to, n)
	})
}

func exec(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), statement, args...)
	require.NoError(t, err)
}
