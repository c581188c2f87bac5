//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/redis/go-redis/v9"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/firstlevel"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
)

// tabs has one user's tabs come at once when the token has expired.
func (r *run) tabs() {
	const tabs = 64
	step("one user's tabs")
	up := servers.StartRedis(r, "save", `""`)
	store := r.redisstore(up)
	r.print("\n## %d tabs of one user, whose token has expired\n\n", tabs)
	r.print("The authority takes 50 ms, and each refresh token once.\n\n| | token requests | tabs that failed | the slowest tab |\n|---|---|---|---|\n")
	for _, c := range []struct {
		name      string
		servers   int
		exclusive bool
	}{{"one server, Exclusive", 1, true}, {"two servers, Exclusive", 2, true}, {"one server, without", 1, false}} {
		a := r.authority(1)
		a.SetLifetime(time.Minute, 0)
		var apps []*persistence.Partitioned
		for range c.servers {
			apps = append(apps, r.server(store))
		}
		user := a.users[0]
		r.must(apps[0].SignOut(r.ctx, user.HomeAccountID()))
		r.must(a.signIn(r.ctx, apps[0], user))
		a.SetLifetime(time.Hour, 0)
		a.SetDelay(50 * time.Millisecond)
		before := a.Requests(entratest.GrantRefreshToken)
		var failed, slowest atomic.Int64
		start := time.Now()
		var wg sync.WaitGroup
		for i := range tabs {
			wg.Go(func() {
				if a.inTurn(r.ctx, apps[i%len(apps)], user.HomeAccountID(), c.exclusive) != nil {
					failed.Add(1)
				}
				most(&slowest, int64(time.Since(start)))
			})
		}
		wg.Wait()
		r.print("| %s | %d | %d | %s |\n", c.name, a.Requests(entratest.GrantRefreshToken)-before, failed.Load(), short(float64(slowest.Load())))
	}
}

// inTurn is silent, inside of Exclusive or not.
func (a *authority) inTurn(ctx context.Context, p *persistence.Partitioned, homeAccountID string, exclusive bool) error {
	if !exclusive {
		return a.silent(ctx, p, homeAccountID)
	}
	return p.Exclusive(ctx, homeAccountID, func(ctx context.Context) error { return a.silent(ctx, p, homeAccountID) })
}

func most(of *atomic.Int64, n int64) {
	for {
		if old := of.Load(); old >= n || of.CompareAndSwap(old, n) {
			return
		}
	}
}

func (r *run) redisstore(up *servers.Redis) func(key string) persistence.Versioned {
	s, err := redisstore.New(up.Client(func(o *redis.Options) { o.ContextTimeoutEnabled = true }), nil)
	r.must(err)
	return s.Account
}

// growth serves requests of many users, of which each fifth stores something.
func (r *run) growth(each time.Duration) {
	step("growth")
	const users, clients, parts = 5000, 64, 4
	a := r.authority(1)
	t := r.template(a)
	store := r.redisstore(servers.StartRedis(r, "save", `""`))
	for n := range users {
		id, data := t.of(n)
		r.must(store(id).Save(r.ctx, data))
	}
	r.print("\n## What a long run keeps\n\n%d users, %d clients, each fifth request stores what it has read. The heap is as after a collection.\n\n| | %s requests |\n|---|%s\n",
		users, clients, strings.Join([]string{"before", "after a quarter of the", "after half of the", "after three quarters of the", "after all"}, " | "), strings.Repeat("---|", parts+1))
	near := firstlevel.New(nil)
	for _, c := range []struct {
		name  string
		store func(key string) persistence.Versioned
	}{{"", store}, {", with firstlevel", func(key string) persistence.Versioned { return near.Account(key, store(key)) }}} {
		p := r.server(c.store)
		heap, goroutines, requests := "| heap"+c.name, "| goroutines"+c.name, 0
		for part := range parts + 1 {
			if part > 0 {
				requests += r.serve(a, p, t, users, clients, each)
			}
			var stats runtime.MemStats
			for range 3 { // in-memory caches are forgotten by the collector, in steps
				runtime.GC()
			}
			runtime.ReadMemStats(&stats)
			heap += fmt.Sprintf(" | %.1f MB", float64(stats.HeapAlloc)/1e6)
			goroutines += fmt.Sprintf(" | %d", runtime.NumGoroutine())
		}
		r.print("%s, of %d requests |\n%s |\n", heap, requests, goroutines)
	}
}

// serve serves requests for a while, and returns how many.
func (r *run) serve(a *authority, p *persistence.Partitioned, t template, users, clients int, each time.Duration) int {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	start := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := 0; time.Since(start) < each && failed.Load() == nil; i++ {
				id, _ := t.of(mathrand.IntN(users))
				err := a.silent(r.ctx, p, id)
				if err == nil && i%5 == 0 {
					err = rewrite(r.ctx, p, id)
				}
				if err != nil {
					failed.Store(&err)
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		r.Fatal(*err)
	}
	return int(done.Load())
}

// renewed is an in-memory cache that gives what it was given another time.
type renewed struct{ data []byte }

func (c *renewed) Unmarshal(b []byte) error { c.data = b; return nil }

func (c *renewed) Marshal() ([]byte, error) {
	const at = `"cached_at":"`
	if i := bytes.Index(c.data, []byte(at)); i >= 0 {
		copy(c.data[i+len(at):], fmt.Sprint(time.Now().Unix()-mathrand.Int64N(1000)))
	}
	return bytes.Clone(c.data), nil
}

func rewrite(ctx context.Context, p *persistence.Partitioned, id string) error {
	var c renewed
	if err := p.Replace(ctx, &c, cache.ReplaceHints{PartitionKey: id}); err != nil {
		return err
	}
	return p.Export(ctx, &c, cache.ExportHints{PartitionKey: id})
}
