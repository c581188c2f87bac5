package encrypted

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/argon2"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Cost is how much work Argon2id makes of one guess at a passphrase. It is
// written into the file, so that another Cost can be chosen later: files keep
// theirs until [File.Rotate].
type Cost struct {
	Memory uint32 // in KiB, at least 8 for each lane, at most 1 GiB
	Passes uint32 // 1 to 1024, and Memory × Passes at most 4 GiB
	Lanes  uint8  // 1 to 16
}

// DefaultCost is the second recommendation of RFC 9106, section 4: 64 MiB,
// 3 passes, 4 lanes.
var DefaultCost = Cost{Memory: 64 << 10, Passes: 3, Lanes: 4}

// The caps keep a file that somebody else wrote from taking all memory or
// hours: they are checked before any work is done.
const (
	maxMemory = 1 << 20 // KiB
	maxPasses = 1 << 10
	maxLanes  = 16
	maxWork   = 4 << 20 // KiB × passes
)

func (c Cost) ok() bool {
	return 1 <= c.Lanes && c.Lanes <= maxLanes &&
		8*uint32(c.Lanes) <= c.Memory && c.Memory <= maxMemory &&
		1 <= c.Passes && c.Passes <= maxPasses &&
		uint64(c.Memory)*uint64(c.Passes) <= maxWork
}

// Passphrase returns the source of keys that Argon2id derives from a
// passphrase, with [DefaultCost].
//
// ask is called when a key is needed that is not in memory: once per process
// for each file, as long as the passphrase is the right one. It may prompt a
// person. If it outlasts the context of the call that needs the key, that call
// fails and the next one waits for the same answer: there is never a second
// prompt beside the first. What ask returns is not kept and not overwritten.
// Its error is passed on to the caller: it must hold no secret.
//
// An empty passphrase is refused. A wrong one is [persistence.ErrWrongKey].
func Passphrase(ask func(ctx context.Context) ([]byte, error)) KeySource {
	return &passphrase{ask: ask, cost: DefaultCost}
}

// PassphraseCost is [Passphrase] with another cost for new keys. One that is
// out of bounds fails in [New]. Less than DefaultCost makes guessing cheaper.
func PassphraseCost(ask func(ctx context.Context) ([]byte, error), cost Cost) KeySource {
	return &passphrase{ask: ask, cost: cost}
}

type passphrase struct {
	ask  func(context.Context) ([]byte, error)
	cost Cost

	mu      sync.Mutex
	pending *answer // of an ask that is still running
}

// answer is what ask returned, once done is closed. It is behind a function, so
// that a source that is printed by mistake does not show it.
type answer struct {
	ctx  context.Context // that ask was called with
	done chan struct{}
	get  func() ([]byte, error)
}

const argonSaltSize = 16

func (p *passphrase) Source() string { return "passphrase" }

func (p *passphrase) valid() error {
	if p.ask == nil {
		return errors.New("nothing to ask for the passphrase is given")
	}
	if !p.cost.ok() {
		return errors.New("the cost of the passphrase is out of bounds")
	}
	return nil
}

func (p *passphrase) NewKey(ctx context.Context, id string) (string, []byte, error) {
	if err := p.valid(); err != nil {
		return "", nil, err
	}
	salt := make([]byte, argonSaltSize)
	rand.Read(salt) // never fails
	key, err := p.derive(ctx, salt, p.cost)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("%s m=%d p=%d salt=%s t=%d", id, p.cost.Memory, p.cost.Lanes, encode(salt), p.cost.Passes), key, nil
}

func (p *passphrase) Key(ctx context.Context, ref string) ([]byte, error) {
	salt, cost, err := parsePassphraseRef(ref)
	if err != nil {
		return nil, err
	}
	return p.derive(ctx, salt, cost)
}

// parsePassphraseRef reads "<id> m=… p=… salt=… t=…", written in the one way
// that NewKey writes it.
func parsePassphraseRef(ref string) (salt []byte, c Cost, err error) {
	malformed := fault(remedyCorrupt, "%w", corrupt("its header describes no passphrase"))
	fields := strings.Split(ref, " ")
	if len(fields) != 5 {
		return nil, c, malformed
	}
	var value [4]string
	for i, name := range []string{"m=", "p=", "salt=", "t="} {
		var ok bool
		if value[i], ok = strings.CutPrefix(fields[i+1], name); !ok || value[i] == "" {
			return nil, c, malformed
		}
	}
	number := func(s string) uint64 { // 0 for what is not written in the one way
		if len(s) > 10 || s[0] == '0' || strings.TrimLeft(s, digits) != "" {
			return 0
		}
		n, _ := strconv.ParseUint(s, 10, 64)
		return n
	}
	salt, err = base64.RawURLEncoding.Strict().DecodeString(value[2])
	m, lanes, t := number(value[0]), number(value[1]), number(value[3])
	if err != nil || len(salt) != argonSaltSize || m == 0 || lanes == 0 || t == 0 || m < 8*lanes {
		return nil, c, malformed
	}
	if m > maxMemory || lanes > maxLanes || t > maxPasses || m*t > maxWork {
		return nil, c, fault("Update this program. If the file is not from a program you trust, remove it.",
			"%w: its passphrase takes more work than this version does (%d KiB, %d passes, %d lanes)", persistence.ErrUnsupportedVersion, m, t, lanes)
	}
	return salt, Cost{Memory: uint32(m), Passes: uint32(t), Lanes: uint8(lanes)}, nil
}

// deriving has room for one: a derivation uses several cores and much memory.
var deriving = make(chan struct{}, 1)

// derive returns the key, or leaves both the question and the derivation
// behind when ctx ends.
func (p *passphrase) derive(ctx context.Context, salt []byte, c Cost) ([]byte, error) {
	secret, err := p.answer(ctx)
	if err != nil {
		return nil, fault("", "asking for the passphrase: %w", err)
	}
	if len(secret) == 0 {
		return nil, fault("Enter a passphrase that is not empty.", "%w: the passphrase is empty", persistence.ErrWrongKey)
	}
	select {
	case deriving <- struct{}{}:
	case <-ctx.Done():
		return nil, fault("", "waiting for another passphrase's derivation: %w", context.Cause(ctx))
	}
	key := make(chan []byte, 1)
	go func() {
		defer func() { <-deriving }()
		key <- argon2.IDKey(secret, salt, c.Passes, c.Memory, c.Lanes, keySize)
	}()
	select {
	case k := <-key:
		return k, nil
	case <-ctx.Done():
		return nil, fault("", "deriving the key: %w", context.Cause(ctx))
	}
}

// answer asks, or joins the question that an earlier call left behind. An
// answer that nobody waited for is for the next call.
func (p *passphrase) answer(ctx context.Context) ([]byte, error) {
	for ctx.Err() == nil {
		p.mu.Lock()
		a := p.pending
		ours := a == nil
		if ours {
			a = &answer{done: make(chan struct{}), ctx: ctx}
			p.pending = a
			go func() {
				passphrase, err := p.ask(ctx)
				a.get = func() ([]byte, error) { return passphrase, err }
				close(a.done)
			}()
		}
		p.mu.Unlock()
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		p.mu.Lock()
		if p.pending == a {
			p.pending = nil
		}
		p.mu.Unlock()
		passphrase, err := a.get()
		if err == nil || a.ctx.Err() == nil || ours {
			return passphrase, err
		} // else it was given up because of the context of the call that asked, not of this one
	}
	return nil, context.Cause(ctx)
}
