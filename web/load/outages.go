//go:build linux

package main

import (
	"context"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/firstlevel"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
)

// outages lets users come while the store is in trouble, and counts what they see.
func (r *run) outages(lasts time.Duration) {
	r.print("\n## What users see of an outage of %s\n\n", lasts)
	r.print(`Users with a good token come to read, others have one that has expired, and others sign
in. A store gets two seconds for each request; Flush is called twice a second. Must sign
in again: users whose tokens another server does not find afterwards, or finds spent.

| | reads that failed | refreshes that failed | sign-ins that failed | must sign in again | the longest wait | accounts unsaved, at most | lines logged |
|---|---|---|---|---|---|---|---|
`)
	aof := func() *servers.Redis { return servers.StartRedis(r, "appendonly", "yes") }
	killed := func(up *servers.Redis) (begin, end func()) { return up.Kill, up.Start }
	up := aof()
	begin, end := killed(up)
	r.outage("Redis killed", lasts, r.redisstore(up), begin, end)
	up = aof()
	begin, end = killed(up)
	near, store := firstlevel.New(&firstlevel.Options{MaxStale: time.Minute}), r.redisstore(up)
	r.outage("Redis killed, firstlevel with MaxStale", lasts, func(key string) persistence.Versioned { return near.Account(key, store(key)) }, begin, end)

	up = aof()
	admin := up.Client()
	memory := func(n string) func() {
		return func() { r.must(admin.ConfigSet(r.ctx, "maxmemory", n).Err()) }
	}
	r.outage("Redis full", lasts, r.redisstore(up), memory("1"), memory("0"))
	up = aof()
	resume := func() {}
	r.outage("Redis hangs", lasts, r.redisstore(up), func() { resume = up.Pause() }, func() { resume() })

	pg := servers.StartPostgres(r)
	db := pg.DB("postgres")
	rows, err := sqlstore.New(db, sqlstore.PostgreSQL, nil)
	r.must(err)
	r.must(rows.Migrate(r.ctx))
	r.outage("PostgreSQL killed", lasts, rows.Account, pg.Kill, pg.Start)
	readOnly := func(is string) func() {
		return func() {
			for _, statement := range []string{"ALTER SYSTEM SET default_transaction_read_only = " + is, "SELECT pg_reload_conf()"} {
				_, err := db.ExecContext(r.ctx, statement)
				r.must(err)
			}
		}
	}
	r.outage("PostgreSQL read-only", lasts, rows.Account, readOnly("on"), readOnly("off"))
}

const (
	readers, refreshers, newcomers = 200, 48, 40
	visitors                       = 16
)

// lines counts what is logged.
type lines struct{ atomic.Int64 }

func (l *lines) Write(b []byte) (int, error) { l.Add(1); return len(b), nil }

// outcome counts requests of one kind.
type outcome struct{ all, failed atomic.Int64 }

func (o *outcome) note(err error) {
	o.all.Add(1)
	if err != nil {
		o.failed.Add(1)
	}
}

func (r *run) outage(name string, lasts time.Duration, store func(key string) persistence.Versioned, begin, end func()) {
	step("outage: " + name)
	a := r.authority(1 + refreshers + newcomers)
	t := r.template(a)
	log := new(lines)
	p := r.server(store, persistence.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	for n := range readers {
		id, data := t.of(n)
		r.must(store(id).Save(r.ctx, data))
		r.must(a.silent(r.ctx, p, id)) // this server has seen the user
	}
	a.SetLifetime(time.Minute, 0) // so short that every request refreshes
	refreshing, coming := a.users[1:1+refreshers], a.users[1+refreshers:]
	for _, u := range refreshing {
		r.must(p.SignOut(r.ctx, u.HomeAccountID()))
		r.must(a.signIn(r.ctx, p, u))
	}

	var reads, refreshes, signIns outcome
	var longest, unsaved, next atomic.Int64
	var signedIn sync.Map // of the newcomers
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for v := range visitors {
		wg.Go(func() {
			for tick := time.NewTicker(5 * time.Millisecond); ; {
				select {
				case <-stop:
					tick.Stop()
					return
				case <-tick.C:
				}
				start := time.Now()
				switch dice := mathrand.IntN(100); {
				case dice < 20:
					u := refreshing[(v+visitors*mathrand.IntN(refreshers/visitors))%refreshers]
					refreshes.note(a.inTurn(r.ctx, p, u.HomeAccountID(), true))
				case dice < 22 && next.Load() < newcomers:
					if n := next.Add(1) - 1; n < newcomers {
						err := a.signIn(r.ctx, p, coming[n])
						if signIns.note(err); err == nil {
							signedIn.Store(n, true)
						}
					}
				default:
					id, _ := t.of(mathrand.IntN(readers))
					reads.note(a.inTurn(r.ctx, p, id, true))
				}
				most(&longest, int64(time.Since(start)))
				n, _ := p.Unsaved()
				most(&unsaved, int64(n))
			}
		})
	}
	wg.Go(func() {
		for tick := time.NewTicker(500 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				p.Flush(r.ctx) //nolint:errcheck // it is tried again
			}
		}
	})
	time.Sleep(lasts / 5)
	begin()
	time.Sleep(lasts)
	end()
	time.Sleep(lasts / 2)
	close(stop)
	wg.Wait()
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	if left, err := p.Flush(ctx); left > 0 {
		r.Fatal(name, ": after the outage: ", err)
	}

	other := r.server(store)
	again := 0
	check := func(u entratest.User) {
		if a.silent(r.ctx, other, u.HomeAccountID()) != nil {
			again++
		}
	}
	for _, u := range refreshing {
		check(u)
	}
	signedIn.Range(func(n, _ any) bool { check(coming[n.(int64)]); return true })
	r.print("| %s | %d of %d | %d of %d | %d of %d | %d | %s | %d | %d |\n", name, reads.failed.Load(), reads.all.Load(), refreshes.failed.Load(), refreshes.all.Load(),
		signIns.failed.Load(), signIns.all.Load(), again, short(float64(longest.Load())), unsaved.Load(), log.Load())
}
