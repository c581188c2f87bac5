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

// app is an app on a store, and what its requests cost.
type app struct {
	accounts        int
	cache           *persistence.Partitioned
	trips           atomic.Int64
	requests        int
	replace, export []time.Duration
	heap            uint64 // in bytes, when a round of requests has been served
}

func newApp(t *testing.T, accounts int, store func(key string) persistence.Versioned) *app {
	t.Helper()
	a := &app{accounts: accounts}
	var err error
	a.cache, err = persistence.NewPartitioned(func(_ context.Context, key string) (persistence.Persistence, error) {
		return counted{store(key), &a.trips}, nil
	}, persistence.WithStrict())
	require.NoError(t, err)
	return a
}

// serve serves requests of accounts chosen at random, each with a client of
// its own.
func (a *app) serve(t *testing.T, requests int) {
	t.Helper()
	for range requests {
		n := rand.IntN(a.accounts)
		var m memory
		start := time.Now()
		require.NoError(t, a.cache.Replace(t.Context(), &m, cache.ReplaceHints{PartitionKey: account(n)}))
		a.replace = append(a.replace, time.Since(start))
		require.Contains(t, string(m.data), account(n))
		m.renew()
		start = time.Now()
		require.NoError(t, a.cache.Export(t.Context(), &m, cache.ExportHints{PartitionKey: account(n)}))
		a.export = append(a.export, time.Since(start))
	}
	a.requests += requests
	var stats runtime.MemStats
	for range 3 { // in-memory caches are forgotten by the collector, in steps
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	a.heap = max(a.heap, stats.HeapAlloc)
}

func (a *app) perRequest() float64 { return float64(a.trips.Load()) / float64(a.requests) }

func median(d []time.Duration) time.Duration { slices.Sort(d); return d[len(d)/2] }

var few, many, requests = 100, 2_000, 500

func init() {
	if os.Getenv("TOKENKEEP_LONG") == "1" {
		few, many, requests = 1_000, 1_000_000, 10_000
	}
}

const (
	rounds = 20
	// growth is what the heap may grow by from the first round to the last.
	growth = 2 << 20
)

// inTurn lets two apps serve requests in turn, and returns by how much the heap
// grew after the first round.
func inTurn(t *testing.T, a, b *app) int64 {
	t.Helper()
	var first uint64
	for n := range rounds {
		a.serve(t, requests/rounds)
		b.serve(t, requests/rounds)
		if n == 0 {
			first = max(a.heap, b.heap)
		}
	}
	return int64(max(a.heap, b.heap)) - int64(first)
}

// compare lets two apps serve requests in turn, one on a store with few
// accounts and one on a store with many. What a request costs in time is
// printed, and decides nothing.
func compare(t *testing.T, name string, a, b *app) {
	require.Less(t, inTurn(t, a, b), int64(growth), "the app keeps nothing of the accounts")
	require.Equal(t, a.perRequest(), b.perRequest(), "a request asks the store as often")
	require.LessOrEqual(t, b.perRequest(), 4.0)
	out := fmt.Sprintf("\n| %s | %d accounts | %d accounts | ratio |\n|---|---|---|---|\n", name, a.accounts, b.accounts)
	line := func(what string, x, y any, ratio float64) {
		out += fmt.Sprintf("| %s | %v | %v | %.2f |\n", what, x, y, ratio)
	}
	times := func(what string, x, y time.Duration) {
		line(what, x.Round(time.Microsecond), y.Round(time.Microsecond), float64(y)/float64(x))
	}
	times("Replace", median(a.replace), median(b.replace))
	times("Export", median(a.export), median(b.export))
	line("round trips of both", a.perRequest(), b.perRequest(), b.perRequest()/a.perRequest())
	line("heap of the app, MB", fmt.Sprintf("%.1f", float64(a.heap)/1e6), fmt.Sprintf("%.1f", float64(b.heap)/1e6), float64(b.heap)/float64(a.heap))
	t.Log(out)
}

func TestRedis(t *testing.T) {
	filled := func(accounts int) *app {
		client := servers.StartRedis(t, "save", `""`).Client(func(o *redis.Options) { o.ReadTimeout = time.Minute })
		for from := 0; from < accounts; {
			pipe := client.Pipeline()
			for end := min(from+1000, accounts); from < end; from++ {
				key := redisstore.DefaultPrefix + account(from)
				pipe.HSet(t.Context(), key, "revision", fmt.Sprint("rev", from), "data", tokensOf(from))
				pipe.PExpire(t.Context(), key, redisstore.DefaultTTL*11/10)
			}
			_, err := pipe.Exec(t.Context())
			require.NoError(t, err)
		}
		require.Equal(t, int64(accounts), client.DBSize(t.Context()).Val())
		s, err := redisstore.New(client, nil)
		require.NoError(t, err)
		return newApp(t, accounts, s.Account)
	}
	compare(t, "Redis", filled(few), filled(many))
}

func TestPostgreSQL(t *testing.T) {
	db := servers.StartPostgres(t).DB("postgres")
	filled := func(accounts int) *app {
		table := fmt.Sprint("accounts", accounts)
		s, err := sqlstore.New(db, sqlstore.PostgreSQL, &sqlstore.Options{Table: table})
		require.NoError(t, err)
		require.NoError(t, s.Migrate(t.Context()))
		now, ttl := time.Now().Unix(), int64(sqlstore.DefaultTTL/time.Second)
		for from := 0; from < accounts; {
			var numbers, expires []int64
			for end := min(from+20_000, accounts); from < end; from++ {
				numbers, expires = append(numbers, int64(from)), append(expires, row.Expiry(account(from), now, ttl))
			}
			exec(t, db, `INSERT INTO `+table+`
				SELECT 'user' || n || '.utid', 'rev' || n, convert_to(replace($1, 'ACCOUNT', 'user' || n || '.utid'), 'UTF8'), expires
				FROM unnest($2::bigint[], $3::bigint[]) AS u (n, expires)`, template, numbers, expires)
		}
		exec(t, db, `VACUUM ANALYZE `+table)
		return newApp(t, accounts, s.Account)
	}
	a, b := filled(few), filled(many)
	exec(t, db, `CHECKPOINT`) // what loading left to do is not to be measured
	compare(t, "PostgreSQL", a, b)
}

// TestLeakIsSeen is the control: an app that keeps something of each request.
func TestLeakIsSeen(t *testing.T) {
	var kept [][]byte
	leaky := func() *app {
		stores := map[string]persistence.Versioned{}
		for n := range few {
			stores[account(n)] = persistence.NewMemory()
			require.NoError(t, stores[account(n)].Save(t.Context(), []byte(tokensOf(n))))
		}
		return newApp(t, few, func(key string) persistence.Versioned {
			kept = append(kept, make([]byte, 20<<10))
			return stores[key]
		})
	}
	a, b := leaky(), leaky()
	require.Greater(t, inTurn(t, a, b), int64(growth))
	runtime.KeepAlive(kept)
}

func exec(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), statement, args...)
	require.NoError(t, err)
}
