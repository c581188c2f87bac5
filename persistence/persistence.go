package persistence

import "context"

// Persistence keeps one serialized token cache: bytes that mean nothing to it.
//
// Empty data is data: what was saved empty is loaded empty, without an error.
// Only where nothing is stored does Load fail, with [ErrNotFound]; it never
// returns nil data with a nil error. What Load returns belongs to the caller,
// and Save keeps no reference to its argument.
//
// Every method is safe for concurrent use. It obeys its context in every wait but
// that for a disk, and fails with an [*Error]. A Save that fails or is cancelled
// leaves the old value or the new one, whole.
//
// To test an implementation, run the suite of package
// [github.com/tokenkeep/tokenkeep/persistence/persistencetest] on it.
type Persistence interface {
	// Load returns what was saved last, or ErrNotFound when nothing is saved.
	Load(ctx context.Context) ([]byte, error)
	// Save replaces what was stored with data: all of it or nothing,
	// and durably, before it returns nil.
	Save(ctx context.Context, data []byte) error
	// Delete removes what is stored. Deleting what is not there succeeds.
	Delete(ctx context.Context) error
}

// Versioned is a [Persistence] that can tell whether what it holds has changed.
//
// A revision names one saved state. It is random or a digest, never a counter
// and never a time: a counter would start again after a Delete, and could then match
// that of an old memory. Equal revisions mean equal data; the same data
// saved twice may have two revisions. "" means that nothing is stored.
type Versioned interface {
	Persistence
	// Revision returns the revision of what is stored, "" when nothing is. It
	// is called before every use of a token, so it should cost much less than
	// Load.
	Revision(ctx context.Context) (string, error)
	// LoadRevision returns what is stored and its revision, both of one moment. If it
	// fails, data is nil, and rev is the stored revision, if that is known, or "".
	LoadRevision(ctx context.Context) (data []byte, rev string, err error)
	// SaveIf saves data if the stored revision still is rev, and returns the new
	// revision. A rev of "" means that nothing is stored. Otherwise it changes nothing and
	// fails with ErrConflict.
	SaveIf(ctx context.Context, data []byte, rev string) (string, error)
	// DeleteIf deletes what is stored if its revision still is rev, else fails
	// with ErrConflict. With "" it succeeds only if nothing is stored.
	DeleteIf(ctx context.Context, rev string) error
}

// Locker is an ability of a [Persistence]: it has the lock that its writers
// share, in this process and in others.
type Locker interface {
	// Lock waits for the lock until ctx ends, and then fails with
	// ErrLockTimeout. The caller calls unlock once; what a second call does is
	// not defined here. When a process ends, however it ends, its locks are free
	// at once.
	Lock(ctx context.Context) (unlock func() error, err error)
}

// NamedLocker is a [Locker] with further locks, one for each name. They are
// independent of each other and of the one that Lock takes.
// [Cache.Exclusive] needs it.
type NamedLocker interface {
	Locker
	// LockName is Lock for the lock of that name.
	LockName(ctx context.Context, name string) (unlock func() error, err error)
}

// SetAsider is an ability of a [Versioned]: it moves data that cannot be used any more
// out of the way, so that nobody has to do that by hand. A [Cache] asks for it when MSAL
// refuses what is stored and it is no token cache.
type SetAsider interface {
	// SetAside moves what is stored, whole, to another place if its revision still
	// is rev. Then nothing is stored. It returns the name of that place, for a
	// person, or "" if somebody else has told that person already. Where the
	// revision is another one it changes nothing and fails with ErrConflict. A
	// backend may refuse to move what it can read, or may be able to read again.
	SetAside(ctx context.Context, rev string) (place string, err error)
}

// Description says what a [Persistence] is, for a person: nothing in it is
// secret. The zero value means that the Persistence does not say.
type Description struct {
	Backend   string `json:"backend"`             // one word: "encrypted", "keyring", "plaintext", "memory", …
	Location  string `json:"location"`            // where it lies: a file's path, a keyring item's name; "" for memory
	Encrypted bool   `json:"encrypted"`           // whether it is encrypted at rest, in a way that does not depend on the disk's own encryption
	KeySource string `json:"keySource,omitempty"` // of an encrypted file: where its key comes from, "keyring", "passphrase", …
}

// Describer is what [Describe] asks.
type Describer interface {
	Describe() Description
}

// Describe returns what p says of itself. It does no I/O.
func Describe(p Persistence) Description {
	if d, ok := p.(Describer); ok {
		return d.Describe()
	}
	return Description{}
}
