package persistence

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// Change says what has become of a stored cache; see [Cache.Watch].
type Change struct {
	// Accounts are those that are signed in now.
	Accounts []Account
	// Added and Removed are those that signed in and out since the last Change
	// or, for the first one, since Watch was called. Both are empty where only
	// tokens have changed.
	Added, Removed []Account
	// Keys are the keys of package tokensource that have tokens now, and AddedKeys
	// and RemovedKeys are what has become of them since the last Change.
	Keys, AddedKeys, RemovedKeys []string
}

// Account is an account that is signed in, as the MSAL libraries store it. Its
// identity is the home account id and the cloud: several hosts are names of one
// cloud, login.windows.net and login.microsoftonline.com for example.
type Account struct {
	HomeAccountID string
	Environment   string // the host of the identity provider: a name of the cloud
	Username      string // to be shown to the user; may be ""
}

// identity returns the account in the form by which accounts compare.
func (a Account) identity() tokencache.Account {
	return tokencache.Account{HomeAccountID: a.HomeAccountID, Environment: a.Environment}.Identity()
}

const (
	pollEvery = 5 * time.Second
	safetyNet = time.Minute

	// gather is how long Watch waits after a sign of a change for more: one save
	// gives several.
	gather = 50 * time.Millisecond
)

// Watch reports changes of the stored cache until ctx ends, and then closes the
// channel. What is stored when it is called is what the first Change is compared
// with, so an app calls it first and then shows who is signed in:
//
//	changes := c.Watch(ctx, 0)
//	show(accounts of the client)
//	for change := range changes {
//		show(change.Accounts)
//	}
//
// Every writer's changes are reported: other processes', other Caches' and those
// made through this one. MSAL clients need not be told; they read what is new at
// their next call.
//
// A Change leads from the one received before to what is stored now. So a slow
// receiver gets fewer of them, holds up nobody, and always learns of the final
// state. What was done and undone in between is not reported.
//
// For a file the system tells of changes in its folder, mostly within a tenth of
// a second; all else is polled. Watch reads the stored cache
// before it returns, and whenever it has changed, so a key source may ask for a
// passphrase then. What cannot be read is logged, and read again
// later; until it can be read for the first time, nobody counts as signed in.
//
// Watch looks for changes at least once in the time every. 0 or less means the
// default: every 5 seconds where the system tells of no change, and every minute where it does,
// as a safety net. Give an interval where other computers write the cache, on a
// network file system for example. A look costs what [Versioned] says of
// Revision.
//
// Watch has a goroutine of its own, and what it needs of the system, until the
// channel is closed.
func (c *Cache) Watch(ctx context.Context, every time.Duration) <-chan Change {
	w := &watcher{cache: c, changes: make(chan Change), every: max(every, 0)}
	w.look(ctx)
	w.reported = w.current
	go w.run(ctx)
	return w.changes
}

// watcher is a Watch under way.
type watcher struct {
	cache   *Cache
	changes chan Change
	every   time.Duration // 0 for the default

	system  *fsnotify.Watcher // nil where the system has none
	folders []string          // that system watches
	all     bool              // these are all that have to be watched
	theirs  map[string]bool   // the files of neighbours

	reported, current state
}

// state is a state of the stored cache.
type state struct {
	rev      string
	accounts []Account
	keys     []string
}

func (w *watcher) run(ctx context.Context) {
	defer close(w.changes)
	defer w.close()
	var soon <-chan time.Time // nil while there is no sign of a change
	poll := time.NewTimer(w.interval())
	defer poll.Stop()
	look := func() {
		soon = nil
		w.look(ctx)
		poll.Reset(w.interval())
	}
	for {
		var events chan fsnotify.Event
		var errs chan error
		if w.system != nil {
			events, errs = w.system.Events, w.system.Errors
		}
		var changes chan Change
		var change Change
		if w.current.rev != w.reported.rev {
			changes, change = w.changes, w.reported.to(w.current)
		}
		sign := false
		select {
		case <-ctx.Done():
			return
		case changes <- change:
			w.reported = w.current
		case e, ok := <-events:
			if !ok {
				w.close()
			}
			sign = !ok || w.isSign(e)
		case <-errs: // events were lost
			sign = true
		case <-soon:
			look()
		case <-poll.C:
			look()
		}
		if sign && soon == nil {
			soon = time.After(gather)
		}
	}
}

// isSign says whether e may be of a change. Lock files and temporary files are
// written with every save, and read by nobody.
func (w *watcher) isSign(e fsnotify.Event) bool {
	return e.Op != fsnotify.Chmod && (layout.IsData(filepath.Base(e.Name)) || w.theirs[e.Name])
}

// look brings current up to date. The folder is watched before that, so that
// nothing is missed in between.
func (w *watcher) look(ctx context.Context) {
	w.follow()
	bounded, cancel := w.cache.bounded(ctx)
	defer cancel()
	rev, err := w.cache.store.Revision(bounded)
	if err == nil && rev == w.current.rev {
		w.cache.worked("watch")
		return
	}
	var data []byte
	if err == nil {
		data, rev, err = w.cache.load(bounded)
	}
	if err == nil {
		w.cache.worked("watch")
		w.current = state{rev, accountsIn(data), keysIn(data)}
	} else if ctx.Err() == nil {
		w.cache.report("watch", "tokenkeep: cannot see whether the stored tokens have changed; trying again", err)
	}
}

// newNotifier is replaced by tests, for a system that has no more of them.
var newNotifier = fsnotify.NewWatcher

// follow sees that the system tells of changes, where it can: of those of the
// folders, since a file is replaced by another one with every save. It is called
// again and again, as a folder may be made, replaced or another one.
func (w *watcher) follow() {
	folders, all := w.places()
	if len(folders) == 0 {
		w.close()
		return
	}
	if w.system == nil {
		system, err := newNotifier()
		if err != nil { // too many of them, or not supported
			return
		}
		w.system = system
	}
	for _, old := range w.folders {
		if !slices.Contains(folders, old) {
			_ = w.system.Remove(old)
		}
	}
	w.folders, w.all = nil, all
	for _, f := range folders {
		if w.system.Add(f) == nil {
			w.folders = append(w.folders, f)
		} else {
			w.all = false
		}
	}
}

// places returns the folders of what is watched. all reports whether the system can
// tell of everything.
func (w *watcher) places() (folders []string, all bool) {
	all, w.theirs = true, map[string]bool{}
	add := func(path string) (watched string) {
		if !filepath.IsAbs(path) {
			all = false
			return ""
		}
		if dir := filepath.Dir(path); !slices.Contains(folders, dir) {
			folders = append(folders, dir)
		}
		return path
	}
	add(w.cache.Describe().Location)
	for _, n := range w.cache.settings.follow {
		path := n.Describe().Location
		if to, err := filepath.EvalSymlinks(path); err == nil {
			path = to
		}
		w.theirs[add(path)] = true
	}
	return folders, all
}

func (w *watcher) close() {
	if w.system != nil {
		_ = w.system.Close()
	}
	w.system, w.folders, w.all = nil, nil, false
}

func (w *watcher) interval() time.Duration {
	switch {
	case w.every > 0:
		return w.every
	case w.all && len(w.folders) > 0:
		return safetyNet
	default:
		return pollEvery
	}
}

func (s state) to(next state) Change {
	return Change{
		Accounts: slices.Clone(next.accounts),
		Added:    without(next.accounts, s.accounts),
		Removed:  without(s.accounts, next.accounts),

		Keys:        slices.Clone(next.keys),
		AddedKeys:   withoutKeys(next.keys, s.keys),
		RemovedKeys: withoutKeys(s.keys, next.keys),
	}
}

// withoutKeys returns those of keys that are not among others.
func withoutKeys(keys, others []string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return slices.Contains(others, k) })
}

// keysIn returns the keys of package tokensource in a token cache, sorted.
func keysIn(data []byte) []string {
	d, err := tokencache.Parse(data)
	if err != nil {
		return nil
	}
	keys := d.Keys(tokencache.OAuth2Token)
	slices.Sort(keys)
	return keys
}

// without returns those of accounts that are not among others.
func without(accounts, others []Account) (rest []Account) {
	among := map[tokencache.Account]bool{}
	for _, a := range others {
		among[a.identity()] = true
	}
	for _, a := range accounts {
		if !among[a.identity()] {
			rest = append(rest, a)
		}
	}
	return rest
}

// accountsIn returns the accounts of a token cache, each once. What is not a token
// cache has none. Of the entries that an account has for its tenants, the first
// that has a name gives it.
func accountsIn(data []byte) (all []Account) {
	d, err := tokencache.Parse(tokencache.Trim(data))
	if err != nil {
		return nil
	}
	users := map[tokencache.Account]string{}
	entries := d.Section(tokencache.AccountSection).List()
	for i := range entries {
		if id := entries[i].Account().Identity(); users[id] == "" {
			users[id] = entries[i].Field("username")
		}
	}
	seen := map[tokencache.Account]bool{}
	for _, a := range d.Accounts() {
		if id := a.Identity(); !seen[id] {
			seen[id] = true
			all = append(all, Account{HomeAccountID: a.HomeAccountID, Environment: a.Environment, Username: users[id]})
		}
	}
	return all
}
