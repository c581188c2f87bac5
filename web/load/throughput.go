//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/firstlevel"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
	"github.com/tokenkeep/tokenkeep/web/sealed"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
)

const (
	stored = 2000 // accounts
	rounds = 3
)

var goroutines = []int{1, 16, 64, 256}

// target is what requests are made of.
type target struct {
	name    string
	request func(ctx context.Context, n int) error // of the n-th account
	at      map[int][]figures                      // by goroutines, of each round
}

type figures struct {
	perSecond float64
	p50, p99  time.Duration
}

// naive is a cache without revisions, merge or errors of its own: each Replace loads,
// and each Export overwrites.
type naive struct {
	load func(ctx context.Context, key string) ([]byte, error)
	save func(ctx context.Context, key string, data []byte) error
}

func (n naive) Replace(ctx context.Context, u cache.Unmarshaler, h cache.ReplaceHints) error {
	data, err := n.load(ctx, h.PartitionKey)
	if err != nil {
		return err
	}
	return u.Unmarshal(data)
}

func (n naive) Export(ctx context.Context, m cache.Marshaler, h cache.ExportHints) error {
	data, err := m.Marshal()
	if err != nil {
		return err
	}
	return n.save(ctx, h.PartitionKey, data)
}

// throughput measures requests of users whose token is good: a new client, Account,
// AcquireTokenSilent.
func (r *run) throughput(each time.Duration) {
	step("throughput")
	a := r.authority(1)
	t := r.template(a)
	ids := make([]string, stored)
	for n := range ids {
		ids[n], _ = t.of(n)
	}
	silent := func(name string, c cache.ExportReplace) *target {
		return &target{name: name, request: func(ctx context.Context, n int) error { return a.silent(ctx, c, ids[n]) }}
	}
	fill := func(accounts func(string) persistence.Versioned) {
		for n := range stored {
			_, data := t.of(n)
			r.must(accounts(ids[n]).Save(r.ctx, data))
		}
	}
	secret := make([]byte, 32)
	rand.Read(secret) //nolint:errcheck // never fails
	keys, err := sealed.New(sealed.NewKey("1", secret))
	r.must(err)

	up := servers.StartRedis(r, "save", `""`)
	direct := up.Client(func(o *redis.Options) { o.ContextTimeoutEnabled = true })
	onRedis := func(client *redis.Client, prefix string) func(string) persistence.Versioned {
		s, err := redisstore.New(client, &redisstore.Options{Prefix: prefix})
		r.must(err)
		return s.Account
	}
	plain, left := onRedis(direct, "plain:"), onRedis(up.Client(), "plain:")
	fill(plain)
	closed := func(key string) persistence.Versioned { return keys.Account(key, onRedis(direct, "sealed:")(key)) }
	fill(closed)
	near := firstlevel.New(nil)
	naiveRedis := naive{
		load: func(ctx context.Context, key string) ([]byte, error) {
			return direct.HGet(ctx, "plain:"+key, "data").Bytes()
		},
		save: func(ctx context.Context, key string, data []byte) error {
			return direct.HSet(ctx, "plain:"+key, "data", data).Err()
		},
	}
	r.compare("Redis", each, []*target{
		{name: "the store alone (HMGET)", request: func(ctx context.Context, n int) error {
			return direct.HMGet(ctx, "plain:"+ids[n], "revision", "data").Err()
		}},
		silent("naive", naiveRedis),
		silent("tokenkeep", r.server(plain)),
		silent("tokenkeep, a goroutine for each call", r.server(left)),
		silent("tokenkeep, sealed", r.server(closed)),
		silent("tokenkeep, sealed, firstlevel", r.server(func(key string) persistence.Versioned { return near.Account(key, closed(key)) })),
	})

	pg := servers.StartPostgres(r)
	db := pg.DB("postgres")
	connector, err := stdlib.GetDefaultDriver().(driver.DriverContext).OpenConnector(pg.URL("postgres"))
	r.must(err)
	unknown := sql.OpenDB(unknownDriver{connector})
	unknown.SetMaxOpenConns(16)
	unknown.SetMaxIdleConns(16)
	r.Cleanup(func() { unknown.Close() })
	onPostgres := func(db *sql.DB) func(string) persistence.Versioned {
		s, err := sqlstore.New(db, sqlstore.PostgreSQL, nil)
		r.must(err)
		r.must(s.Migrate(r.ctx))
		return s.Account
	}
	rows := onPostgres(db)
	fill(rows)
	const query = `SELECT revision, data FROM tokenkeep_accounts WHERE account = $1`
	naivePostgres := naive{
		load: func(ctx context.Context, key string) (data []byte, err error) {
			var rev string
			err = db.QueryRowContext(ctx, query, key).Scan(&rev, &data)
			return data, err
		},
		save: func(ctx context.Context, key string, data []byte) error {
			_, err := db.ExecContext(ctx, `UPDATE tokenkeep_accounts SET data = $2 WHERE account = $1`, key, data)
			return err
		},
	}
	r.compare("PostgreSQL, a pool of 16", each, []*target{
		{name: "the store alone (SELECT)", request: func(ctx context.Context, n int) error {
			_, err := naivePostgres.load(ctx, ids[n])
			return err
		}},
		silent("naive", naivePostgres),
		silent("tokenkeep", r.server(rows)),
		silent("tokenkeep, a goroutine for each call", r.server(onPostgres(unknown))),
	})
}

// unknownDriver hides which driver it is, so that sqlstore takes it for one that may
// not obey contexts.
type unknownDriver struct{ driver.Connector }

func (d unknownDriver) Driver() driver.Driver { return struct{ driver.Driver }{d.Connector.Driver()} }

// compare measures the targets in turn, in several rounds, and prints a table. The
// first two are the floors.
func (r *run) compare(store string, each time.Duration, targets []*target) {
	for _, t := range targets {
		t.at = map[int][]figures{}
	}
	for range rounds {
		for _, g := range goroutines {
			for _, t := range targets {
				t.at[g] = append(t.at[g], r.figures(t, g, each))
			}
		}
	}
	r.print("\n## %s: a request whose token is good\n\n", store)
	r.print("A client of its own, Account and AcquireTokenSilent, of one of %d accounts with so many goroutines at once. Medians of %d rounds; in brackets, as a multiple of the naive cache in the same round.\n\n", stored, rounds)
	r.print("| goroutines | %s |\n|---|%s\n", strings.Join(columns(), " | "), strings.Repeat("---|", len(goroutines)))
	floor := targets[1]
	for i, t := range targets {
		r.print("| %s |", t.name)
		for _, g := range goroutines {
			mid := func(of func(figures) float64) float64 { return median(t.at[g], nil, of) }
			times := func(of func(figures) float64) string {
				if i < 2 {
					return ""
				}
				return fmt.Sprintf(" (**%.2f**)", median(t.at[g], floor.at[g], of))
			}
			perSecond := func(f figures) float64 { return f.perSecond }
			p50, p99 := func(f figures) float64 { return float64(f.p50) }, func(f figures) float64 { return float64(f.p99) }
			r.print(" %.1fk/s%s, p50 %s%s, p99 %s%s |", mid(perSecond)/1000, times(perSecond), short(mid(p50)), times(p50), short(mid(p99)), times(p99))
		}
		r.print("\n")
	}
}

func columns() (all []string) {
	for _, g := range goroutines {
		all = append(all, fmt.Sprint(g))
	}
	return all
}

func short(ns float64) string {
	if ns < 1e6 {
		return fmt.Sprintf("%.0f µs", ns/1e3)
	}
	return fmt.Sprintf("%.1f ms", ns/1e6)
}

// median returns the median of the rounds, each divided by the same round of other if
// that is not nil.
func median(rounds, other []figures, of func(figures) float64) float64 {
	var all []float64
	for i, f := range rounds {
		v := of(f)
		if other != nil {
			v /= of(other[i])
		}
		all = append(all, v)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// figures runs requests of a target in so many goroutines at once.
func (r *run) figures(t *target, goroutines int, each time.Duration) figures {
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	start := time.Now()
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			var mine []time.Duration
			var err error
			for err == nil && time.Since(start) < each {
				begin := time.Now()
				err = t.request(r.ctx, mathrand.IntN(stored))
				mine = append(mine, time.Since(begin))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	total := time.Since(start)
	if failed != nil {
		r.Fatal(t.name, ": ", failed)
	}
	slices.Sort(took)
	return figures{float64(len(took)) / total.Seconds(), took[len(took)/2], took[len(took)*99/100]}
}
