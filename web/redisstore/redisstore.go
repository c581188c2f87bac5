// Package redisstore keeps token caches in Redis, one per account, for web
// apps that run on several machines.
//
//	client := redis.NewUniversalClient(&redis.UniversalOptions{
//		Addrs:                 []string{"redis:6379"},
//		ContextTimeoutEnabled: true,
//	})
//	store, err := redisstore.New(client, nil)
//	...
//	warnings, err := store.Check(ctx) // log them: Redis as it comes loses writes
//
// It works with a single server, Sentinel and Cluster, through any
// [redis.UniversalClient]. It needs Redis 4 or later, or a server that speaks its
// protocol and runs Lua.
//
// # What is stored
//
// One key per account, Options.Prefix followed by the account's key. It is a
// hash with two fields: "revision", a random text, and "data", the serialized
// token cache. Every command touches one key, so Cluster needs no hash tags.
// Tokens are stored as they are. If the server must not see them, put package sealed
// in front of this one.
//
// A server that has an account's lease (see [persistence.Partitioned.Exclusive])
// has a second key, the account's followed by NUL and "lease", which expires by
// itself.
//
// # What it costs
//
// Revision and LoadRevision take one round trip, HMGET and PTTL in one
// pipeline. SaveIf, DeleteIf, Lease and Release take one, a script that compares
// and sets (EVALSHA). Save and Delete take two.
//
// # When Redis does not answer
//
// A request waits no longer than its context: give the cache a deadline that is
// right for a request, such as persistence.WithTimeout(2*time.Second). go-redis
// obeys a context's deadline only with ContextTimeoutEnabled. Set it: without it
// this package makes a goroutine for each call, which under load makes the slowest
// requests half as slow again. With it, a call whose context is cancelled before
// its deadline ends after the client's ReadTimeout at the latest.
//
// # Expiry
//
// Every key has a time to live, a tenth longer than Options.TTL. Each save starts it
// again. A read does so only when that tenth has passed, so that most reads are not
// writes.
//
// # What is not promised
//
// A write is as durable as the server makes it. Check says what a server that
// is killed would lose. Replication is asynchronous: when a replica takes over,
// by Sentinel or in a Cluster, it may lack the last writes that were
// acknowledged. An account whose write is lost has its earlier tokens back, or
// none, and that user signs in again.
package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/account"
)

// DefaultPrefix is what the keys of accounts begin with by default.
const DefaultPrefix = "tokenkeep:"

// DefaultTTL is how long an account is kept by default after its last use:
// longer than the 90 days without use that a refresh token of Microsoft Entra
// ID lasts ("Configurable token lifetimes in the Microsoft identity platform",
// refresh token max inactive time).
const DefaultTTL = 100 * 24 * time.Hour

// MaxSize is the largest data, in bytes, that an account can have. More fails
// with persistence.ErrTooLarge.
const MaxSize = account.MaxSize

// Options are the settings of a Store. The zero value is right for most.
type Options struct {
	// Prefix is what the keys in Redis begin with; "" means DefaultPrefix. Apps
	// that are not to share accounts need prefixes of their own.
	Prefix string
	// TTL is how long an account is kept after its last use, be it read or
	// saved; it may be up to a tenth longer. It should be longer than the
	// authority's refresh tokens last without use. 0 means DefaultTTL; at least
	// a minute.
	TTL time.Duration
}

// Store is a Redis that keeps accounts. It is safe for concurrent use, holds
// nothing but its client, and needs no Close.
type Store struct {
	client redis.UniversalClient
	prefix string
	ttl    time.Duration
	obeys  bool
}

// New returns a Store on client, which stays the caller's to close. It does no
// I/O; see [Store.Check]. A nil opts means the defaults.
//
// Reads must see the last write, so client must not read from replicas
// (ReadOnly, RouteByLatency, RouteRandomly, ReplicaOnly).
func New(client redis.UniversalClient, opts *Options) (*Store, error) {
	if client == nil {
		return nil, openError("the client is nil", "Pass New a client of go-redis.")
	}
	if opts == nil {
		opts = &Options{}
	}
	s := &Store{client: client, prefix: opts.Prefix, ttl: opts.TTL, obeys: obeys(client)}
	if s.prefix == "" {
		s.prefix = DefaultPrefix
	}
	if s.ttl == 0 {
		s.ttl = DefaultTTL
	}
	if s.ttl < time.Minute {
		return nil, openError("the time to live is shorter than a minute", "Set Options.TTL to longer than refresh tokens last, or to 0.")
	}
	return s, nil
}

// obeys reports whether the client's calls end at the deadline of their context, and
// soon after the context was cancelled.
func obeys(client redis.UniversalClient) bool {
	var enabled bool
	var read, write time.Duration
	switch c := client.(type) {
	case *redis.Client:
		o := c.Options()
		enabled, read, write = o.ContextTimeoutEnabled, o.ReadTimeout, o.WriteTimeout
	case *redis.ClusterClient:
		o := c.Options()
		enabled, read, write = o.ContextTimeoutEnabled, o.ReadTimeout, o.WriteTimeout
	case *redis.Ring:
		o := c.Options()
		enabled, read, write = o.ContextTimeoutEnabled, o.ReadTimeout, o.WriteTimeout
	}
	return enabled && read > 0 && write > 0
}

func openError(what, remedy string) error {
	return &persistence.Error{Op: "open", Backend: backend, Err: errors.New(what), Remedy: remedy}
}

// Account returns the cache of one account. key is the account's partition
// key, of MSAL Go its home account id: UTF-8 text of 1 to 512 bytes without
// NUL. A key that is anything else fails every call. Account does no I/O and
// costs next to nothing.
//
// The errors of what it returns match persistence.ErrUnavailable where the
// server is down, slow, read-only, full or refuses this client, and say
// whether a save or a delete was done, or that it cannot be known.
func (s *Store) Account(key string) persistence.Versioned {
	return account.New(rows{s}, key)
}

const backend = "redis"

// rows are the accounts as package account wants them.
type rows struct{ *Store }

func (r rows) Describe(key string) persistence.Description {
	return persistence.Description{Backend: backend, Location: r.prefix + key}
}

func (r rows) Obeys() bool { return r.obeys }

func (r rows) Get(ctx context.Context, key string, withData bool) (data []byte, rev string, err error) {
	key = r.prefix + key
	fields := []string{"revision", "data"}
	if !withData {
		fields = fields[:1]
	}
	pipe := r.client.Pipeline()
	get, left := pipe.HMGet(ctx, key, fields...), pipe.PTTL(ctx, key)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, "", err
	}
	rev, ok := get.Val()[0].(string)
	if !ok {
		return nil, "", nil
	}
	if withData {
		text, ok := get.Val()[1].(string)
		if !ok {
			return nil, "", errNoData
		}
		data = []byte(text)
	}
	if left.Val() < r.ttl {
		// If it fails, the next read tries again.
		r.client.PExpire(ctx, key, r.fresh())
	}
	return data, rev, nil
}

// fresh is the time to live of a key that was just used.
func (r rows) fresh() time.Duration { return r.ttl + r.ttl/10 }

// put and drop compare the revision and change the key in one step. A put that
// finds its own revision is one that was sent twice.
var (
	put = redis.NewScript(`
local now = redis.call('HGET', KEYS[1], 'revision') or ''
if now == ARGV[2] then return 1 end
if now ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'data', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1`)
	drop = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`)
)

func (r rows) Put(ctx context.Context, key string, data []byte, old, rev string) (bool, error) {
	return put.Run(ctx, r.client, []string{r.prefix + key}, old, rev, data, r.fresh().Milliseconds()).Bool()
}

func (r rows) Drop(ctx context.Context, key, old string) (bool, error) {
	return drop.Run(ctx, r.client, []string{r.prefix + key}, old).Bool()
}

// leaseKey is the key of an account's lease. No account's key holds a NUL.
func (r rows) leaseKey(key string) string { return r.prefix + key + "\x00lease" }

// take and give compare the owner and change the lease in one step.
var (
	take = redis.NewScript(`
local now = redis.call('GET', KEYS[1])
if now and now ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)
	give = redis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1`)
)

func (r rows) Lease(ctx context.Context, key, owner string, d time.Duration) (bool, error) {
	return take.Run(ctx, r.client, []string{r.leaseKey(key)}, owner, max(1, d.Milliseconds())).Bool()
}

func (r rows) Release(ctx context.Context, key, owner string) error {
	return give.Run(ctx, r.client, []string{r.leaseKey(key)}, owner).Err()
}
