package persistence

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"

	"github.com/tokenkeep/tokenkeep/internal/replica"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/weakmap"
)

// Partitioned is the token caches of many accounts, each stored by itself: for
// a web app or an API, whose users share nothing but a server. It is MSAL Go's
// [cache.ExportReplace] for confidential clients: pass it to
// confidential.WithCache. What MSAL calls the partition key says which cache is
// meant: the home account id of a user, or a name for the tokens that the
// application has of its own. Each is handled as a [Cache] handles its one.
//
// # A client for each request
//
// An MSAL client has one memory, and it holds one account at a time. Users whom one
// client serves at the same time take it from each other, and their silent sign-ins fail
// with "no token found". So make a client for each request:
//
//	client, err := confidential.New(authority, clientID, credential,
//		confidential.WithCache(partitioned), // one for all
//		confidential.WithHTTPClient(httpClient), // one for all
//		confidential.WithInstanceDiscovery(false))
//
// A client is cheap and leaves nothing behind. With instance discovery it would
// not be: each new client would ask the network for the names of the authority,
// which a program that names a known authority does not need. A sign-in or a
// refresh asks for the authority's openid-configuration as well, once for each
// client; the transport of web/discovery keeps it for all of them.
//
// Whatever a client does, no entry of another account gets into the cache of an
// account.
//
// # Signing out
//
// RemoveAccount of a client names no account to its cache, so it is refused, and
// so is a public client's Accounts. Use [Partitioned.SignOut], and Account with
// an id.
//
// A sign-out is not undone by refreshes that were under way, on any server; see
// [Cache] for what that means and for its limits. A client for each request has
// none of those that come from a shared client.
//
// # Several requests of one user
//
// Tabs whose token has expired refresh it all at once, unless each request gets
// its token in [Partitioned.Exclusive].
//
// # On-behalf-of
//
// MSAL Go 1.10 keeps tokens of the on-behalf-of flow in a memory of its own and
// cannot store them. They work, are kept for as long as the client is, and never
// get into a stored cache. An API that wants them for longer keeps one client
// for that flow alone, which many users may share; it grows with their number.
//
// # Storage errors
//
// As with a [Cache], and unless [WithStrict] is given, a sign-in or a refresh
// succeeds although its tokens cannot be stored. They are kept in this process: the
// next client that asks for the account is given them and tries again to store
// them. If the user signed out elsewhere in the meantime, they are discarded,
// unless the sign-in itself was never stored. [WithMaxUnsaved] bounds how much is
// kept. At that limit, tokens older than an hour are discarded, and if that is not
// enough, Export fails. Tokens that are still kept when the process ends are lost, so
// call [Partitioned.Flush] at intervals and before that. Replace fails if the store
// cannot be read and this in-memory cache does not hold this account's data
// already; for a sign-in see [SigningIn].
//
// A store that hangs holds a request for as long as its context and [WithTimeout]
// permit. The default is right for a person at a desktop; for a web app two
// seconds are:
//
//	persistence.NewPartitioned(open, persistence.WithTimeout(2*time.Second))
//
// A Partitioned is safe for concurrent use, in any number of processes on the
// same data. It holds no connection, file or goroutine, so there is nothing to
// close.
type Partitioned struct {
	settings
	open     func(ctx context.Context, partition string) (Persistence, error)
	memories *weakmap.Map[*clientMemory]
	outbox   outbox
	signOuts removals // by SignOut; the partition stands for the home account id
	turns    turns    // of Exclusive, by partition
	late     turns    // of those who store what could not be stored before, by partition
	owner    string   // of leases
}

var _ cache.ExportReplace = (*Partitioned)(nil)

// maxUsers is how many users' data is remembered of one in-memory cache. It has
// one user or two, unless requests share a client against the advice.
const maxUsers = 16

// users is what a Partitioned knows of one in-memory cache.
type users struct {
	current *user   // whose data it holds; nil: nobody's
	lru     []*user // whose data it held, the last one last
}

// user is an in-memory cache as far as it is of one partition.
type user struct {
	partition string
	engine    engine
	replica   *replica.Replica
	entry     *outboxEntry         // what could not be stored, as the replica has it
	stored    *replica.Outstanding // what the replica knows to have been stored of it
}

// NewPartitioned returns a Partitioned that keeps the data of each partition
// in the Persistence that open returns for it: a [Versioned] or, failing that,
// a [Locker]. With [WithLockFile] it may be neither, but then all accounts wait
// for one lock.
//
// open is called for nearly every request, by many goroutines at once, and
// should do no I/O. What it returns for one partition is always on the same
// data, and for two never. A partition is as long as the authority makes it and
// may have any character. open's errors are returned as they are.
func NewPartitioned(open func(ctx context.Context, partition string) (Persistence, error), opts ...Option) (*Partitioned, error) {
	if open == nil {
		return nil, failure(partitioned, "open", errors.New("open is nil"),
			"Pass NewPartitioned a function that returns the Persistence of a partition.")
	}
	s, err := set(opts)
	if err != nil {
		return nil, failure(partitioned, "open", err, "Correct the option that NewPartitioned was given.")
	}
	if len(s.follow) > 0 {
		return nil, failure(partitioned, "open", errors.New("other programs' sign-ins are of one user, and cannot be followed for many"), "Leave out WithFollow.")
	}
	p := &Partitioned{settings: s, open: open, outbox: outbox{max: s.unsaved}, owner: rand.Text()}
	p.memories = weakmap.New(func() *clientMemory { return newClientMemory(&p.signOuts) })
	return p, nil
}

// partitioned describes a Partitioned where no partition is known.
var partitioned = Description{Backend: "partitioned"}

// Replace makes u hold what is stored of the hinted partition, and nothing else,
// unless it does already: it is half of [cache.ExportReplace]. A hint without a
// partition is refused. An in-memory cache that does not take MSAL's shared
// format is left alone.
func (p *Partitioned) Replace(ctx context.Context, u cache.Unmarshaler, h cache.ReplaceHints) error {
	if isNil(u) {
		return failure(partitioned, "load", errors.New("the Unmarshaler is nil"), "Pass Replace an in-memory cache.")
	}
	m, unlock, err := p.memoryOf(ctx, "load", u, h.PartitionKey)
	if err != nil {
		return err
	}
	defer unlock()
	if m.incompatible {
		return nil
	}
	of := m.users.current
	empty := of == nil || of.partition != h.PartitionKey
	if empty {
		// Whatever fails from here on, the last user's tokens must be gone.
		m.users.current = nil
		switch {
		case emptied(u):
			m.initialized = true
		case !m.initialized:
			m.incompatible = true
			return nil
		default:
			return failure(partitioned, "load", errors.New("the in-memory cache could not be emptied"), "")
		}
		if of, err = p.turnTo(ctx, m, h.PartitionKey); err != nil {
			p.report(partitioned, "replace", "tokenkeep: cannot read the stored tokens", err)
			return err
		}
	}
	p.restore(of)
	r := p.resident(of)
	r.empty = empty
	if err := of.engine.replace(ctx, u, r, h); err != nil {
		return err
	}
	p.flush(ctx, of)
	if x := p.exclusiveOf(ctx, h.PartitionKey); x != nil && due(of.replica, p.now()) && x.take(ctx, &of.engine) {
		// Another server may have refreshed the tokens meanwhile.
		r = p.resident(of)
		r.again = true
		return of.engine.replace(ctx, u, r, h)
	}
	return nil
}

// Export stores what m holds of the hinted partition, merged with what others
// stored, as [Cache.Export] does: it is half of [cache.ExportReplace]. Entries of
// other accounts are left out. Where m was last given another partition, nothing
// is stored: MSAL Go 1.10 makes such a call after an on-behalf-of request. A hint
// without a partition is refused.
func (p *Partitioned) Export(ctx context.Context, m cache.Marshaler, h cache.ExportHints) error {
	if isNil(m) {
		return failure(partitioned, "save", errors.New("the Marshaler is nil"), "Pass Export an in-memory cache.")
	}
	im, unlock, err := p.memoryOf(ctx, "save", m, h.PartitionKey)
	if err != nil {
		return err
	}
	defer unlock()
	of := im.users.current
	if im.incompatible || of == nil || of.partition != h.PartitionKey {
		return nil
	}
	r := p.resident(of)
	err = of.engine.export(ctx, m, r, h)
	waiting := of.replica.Outstanding(p.now())
	switch {
	case waiting == nil:
		p.outbox.remove(of.partition, of.entry)
		of.know(nil)
		return err
	case p.strict, err != nil && !errors.Is(ctx.Err(), context.Canceled):
		// The caller is told that it failed, so it must not be stored later.
	default:
		removed := false
		entry := p.outbox.put(of.partition, of.entry, waiting, func() bool {
			removed = r.signedOut().Any()
			return !removed
		})
		if removed {
			break
		}
		if entry != nil {
			of.know(entry)
			p.worked("unsaved")
			return err
		}
		if err == nil {
			err = of.engine.fail("save", errors.New("the tokens of too many accounts could not be stored"), "See the log for why they could not; WithMaxUnsaved sets how many are kept.")
			of.engine.report("unsaved", "tokenkeep: tokens that could not be stored are lost: there are too many to keep", err)
		}
	}
	of.replica.Discard()
	of.know(nil)
	return err
}

// SignOut removes the cache of an account for good: also what a refresh of it
// that is under way, here or on another server, is about to store. It succeeds
// where nothing is stored. homeAccountID is HomeAccountID of an MSAL account,
// as MSAL writes it.
//
// It ends no session of the program and none at the authority, and access
// tokens that are out stay valid until they expire.
func (p *Partitioned) SignOut(ctx context.Context, homeAccountID string) error {
	if homeAccountID == "" {
		return refuse("delete")
	}
	e, err := p.engineOf(ctx, homeAccountID)
	if err != nil {
		return err
	}
	// Before the removal, so that no other client stores it after that.
	p.signOuts.add(replica.Removed{Accounts: []tokencache.Account{{HomeAccountID: homeAccountID}}})
	waiting := p.outbox.take(homeAccountID)
	if err := e.delete(ctx); err != nil {
		if waiting != nil {
			p.outbox.put(homeAccountID, nil, waiting, func() bool { return true })
		}
		return err
	}
	return nil
}

// memoryOf finds what is known of the in-memory cache v, and locks it.
func (p *Partitioned) memoryOf(ctx context.Context, op string, v any, partition string) (m *clientMemory, unlock func(), err error) {
	if partition == "" {
		return nil, nil, refuse(op)
	}
	m, ok := p.memories.Of(v)
	if !ok {
		return nil, nil, failure(partitioned, op, errors.New("the in-memory cache is not a pointer, so it cannot be told from another user's"), "Pass a pointer.")
	}
	if err := m.lock(ctx, &p.settings); err != nil {
		return nil, nil, failure(partitioned, op, err, "")
	}
	m.tell(&p.settings)
	return m, m.unlock, nil
}

func refuse(op string) error {
	return failure(partitioned, op, errors.New("no account is named, and each has a cache of its own"),
		"To sign a user out call SignOut with the account's id instead of RemoveAccount; to find an account call Account with its id.")
}

// engineOf returns the engine of the partition.
func (p *Partitioned) engineOf(ctx context.Context, partition string) (engine, error) {
	store, err := p.open(ctx, partition)
	if err == nil && isNil(store) {
		err = failure(partitioned, "open", errors.New("open returned no Persistence"), "")
	}
	if err != nil {
		return engine{}, err
	}
	return newEngine(p.settings, store)
}

// turnTo makes the partition the current one of an in-memory cache that holds
// nothing now.
func (p *Partitioned) turnTo(ctx context.Context, m *clientMemory, partition string) (*user, error) {
	all := &m.users
	var of *user
	if i := slices.IndexFunc(all.lru, func(u *user) bool { return u.partition == partition }); i >= 0 {
		of = all.lru[i]
		all.lru = slices.Delete(all.lru, i, i+1)
		of.replica.Emptied()
	} else {
		e, err := p.engineOf(ctx, partition)
		if err != nil {
			return nil, err
		}
		of = &user{partition: partition, engine: e, replica: replica.New(&m.signOuts, partition)}
		if len(all.lru) == maxUsers {
			all.lru = slices.Delete(all.lru, 0, 1)
		}
	}
	all.lru = append(all.lru, of)
	all.current = of
	return of, nil
}

func (p *Partitioned) resident(of *user) resident {
	now := p.signOuts.count()
	return resident{Replica: of.replica, others: &othersOfUser{p: p, of: of, known: now, seen: now}}
}

// othersOfUser are the others of one call for a user.
type othersOfUser struct {
	p           *Partitioned
	of          *user
	known, seen uint64 // how many sign-outs signedOut and signedOutNow know
}

func (o *othersOfUser) removed() replica.Removed {
	out, of := &o.p.outbox, o.of
	x := replica.Removed{All: out.settled(of.partition, of.entry), Stored: out.storedSince(of.partition, of.entry, of.stored)}
	if x.Stored != nil {
		of.stored = x.Stored
	}
	return x
}

func (o *othersOfUser) signedOut() replica.Removed {
	return replica.Removed{All: o.since(&o.known)}
}

// signedOutNow returns nothing where something was stored: SignOut deletes that, so
// either the save meets a conflict, or what it has saved is deleted.
func (o *othersOfUser) signedOutNow(created bool) replica.Removed {
	return replica.Removed{All: o.since(&o.seen) && created}
}

// since reports whether the user was signed out after the first *known sign-outs, and
// counts those that there are now.
func (o *othersOfUser) since(known *uint64) bool {
	all, now := o.p.signOuts.since(*known)
	*known = now
	return isOf(all, o.of.partition)
}

func (o *othersOfUser) alone(ctx context.Context) (end func(), err error) {
	if o.of.entry == nil {
		return func() {}, nil
	}
	return o.p.late.take(ctx, o.of.partition)
}

func (o *othersOfUser) stored() {
	o.p.outbox.remove(o.of.partition, o.of.entry)
	o.of.know(nil)
}

// isOf reports whether the partition's account is among those that were removed.
func isOf(x replica.Removed, partition string) bool {
	return slices.ContainsFunc(x.Accounts, func(a tokencache.Account) bool { return a.HomeAccountID == partition })
}

// restore makes what the outbox has of the partition the replica's own.
func (p *Partitioned) restore(of *user) {
	if entry := p.outbox.get(of.partition); entry != of.entry {
		of.replica.Adopt(entry.outstanding(), p.now())
		of.know(entry)
	}
}

// know notes that the replica has what entry, which may be nil, has.
func (of *user) know(entry *outboxEntry) {
	of.entry, of.stored = entry, nil
	if entry != nil {
		of.stored = entry.stored
	}
}

// Flush tries to store the tokens that could not be stored before, also those of
// users who do not come back to this process. It returns of how many accounts there
// still are some, and why if there are any. Call it every few seconds and, with a
// context that gives it some seconds, when the program ends:
//
//	go func() {
//		tick := time.NewTicker(5 * time.Second)
//		defer tick.Stop()
//		for ctx.Err() == nil {
//			select {
//			case <-tick.C:
//				partitioned.Flush(ctx) // the log says why tokens could not be stored
//			case <-ctx.Done():
//			}
//		}
//	}()
//	...
//	server.Shutdown(ending)
//	if left, err := partitioned.Flush(ending); left > 0 {
//		log.Printf("the newest tokens of %d accounts are lost: %v", left, err)
//	}
//
// It costs nothing where there is nothing to store, and gives up early where
// nothing can be stored. A user who signed out meanwhile stays signed out. It may
// run while requests do; [Partitioned.Unsaved] tells metrics how much is left.
func (p *Partitioned) Flush(ctx context.Context) (left int, err error) {
	partitions := make(chan string)
	var (
		workers sync.WaitGroup
		mu      sync.Mutex
		failed  int // since the last one that could be stored
	)
	for range flushers {
		workers.Go(func() {
			for partition := range partitions {
				e := p.flushOut(ctx, partition)
				mu.Lock()
				if failed++; e == nil {
					failed = 0
				} else {
					err = e
				}
				mu.Unlock()
			}
		})
	}
	for _, partition := range p.outbox.partitions() {
		mu.Lock()
		hopeless := failed >= 2*flushers
		mu.Unlock()
		if hopeless || ctx.Err() != nil {
			break
		}
		partitions <- partition
	}
	close(partitions)
	workers.Wait()
	if left, _ = p.outbox.count(); left == 0 {
		return 0, nil
	}
	if err == nil {
		err = failure(partitioned, "save", cmp.Or(ctx.Err(), errors.New("tokens could not be stored meanwhile")), "")
	}
	return left, err
}

// flushers is how many accounts Flush stores at once.
const flushers = 8

// flushOut stores what the outbox has of the partition.
func (p *Partitioned) flushOut(ctx context.Context, partition string) error {
	entry := p.outbox.get(partition)
	if entry == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return failure(partitioned, "save", err, "")
	}
	e, err := p.engineOf(ctx, partition)
	if err != nil {
		return err
	}
	of := &user{partition: partition, engine: e, replica: replica.New(new(replica.SignOuts), partition)}
	of.know(entry)
	of.replica.Adopt(entry.tokens, p.now())
	bounded, cancel := p.bounded(ctx)
	defer cancel()
	return e.write(bounded, p.resident(of), of.replica.Resume(p.now()))
}

// Unsaved returns of how many accounts there are tokens that could not be stored
// yet, and how many bytes of memory they take.
func (p *Partitioned) Unsaved() (accounts, bytes int) { return p.outbox.count() }

// flush tries to store what could not be stored before. That it could not was
// logged the first time.
func (p *Partitioned) flush(ctx context.Context, of *user) {
	if of.replica.Pending() != nil {
		if _, ok := of.replica.AtRevision(); !ok {
			return // nothing could be read either
		}
		if p.late.taken(of.partition) {
			return // another request is storing it
		}
		bounded, cancel := p.bounded(ctx)
		defer cancel()
		of.engine.write(bounded, p.resident(of), of.replica.Resume(p.now())) //nolint:errcheck // it was logged
		return
	}
	p.outbox.remove(of.partition, of.entry)
	of.know(nil)
}
