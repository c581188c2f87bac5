package encrypted

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Cost is how much work Argon2id makes of one guess at a passphrase. It is written
// into the file. Files keep their cost until [File.Rotate].
type Cost struct {
	Memory uint32 // in KiB, at least 8 for each lane, at most 1 GiB
	Passes uint32 // 1 to 1024, and Memory × Passes at most 4 GiB
	Lanes  uint8  // 1 to 16
}

// DefaultCost is the second recommendation of RFC 9106, section 4: 64 MiB,
// 3 passes, 4 lanes.
var DefaultCost = Cost{Memory: 64 << 10, Passes: 3, Lanes: 4}

// The limits of the format. They are checked before any work is done, so that a
// file that somebody else wrote cannot take all memory or hours.
const (
	maxMemory = 1 << 20 // KiB
	maxPasses = 1 << 10
	maxLanes  = 16
	maxWork   = 4 << 20 // KiB × passes
)

func (c Cost) valid() bool {
	return 1 <= c.Lanes && c.Lanes <= maxLanes &&
		8*uint32(c.Lanes) <= c.Memory && c.Memory <= maxMemory &&
		1 <= c.Passes && c.Passes <= maxPasses &&
		c.work() <= maxWork
}

// work is what the time of a derivation depends on.
func (c Cost) work() uint64 { return uint64(c.Memory) * uint64(c.Passes) }

// tolerance is how many times the usual memory and work a header may ask for.
const tolerance = 4

// usual is the cost that files have: the program's own or, if that is less, the
// default.
func (p *passphrase) usual() (memory uint32, work uint64) {
	return max(p.cost.Memory, DefaultCost.Memory), max(p.cost.work(), DefaultCost.work())
}

// PassphraseOptions are the settings of [Passphrase]. Nil stands for their zero
// value.
type PassphraseOptions struct {
	// Cost for new keys; the zero value means DefaultCost. Less than DefaultCost
	// makes guessing cheaper.
	//
	// It also sets what a file may cost: a file that asks for more than four
	// times the memory or the work (memory × passes) of Cost, or of DefaultCost
	// if that is more, is refused with ErrUnsupportedVersion before anybody is
	// asked.
	Cost Cost
}

// Passphrase returns the source of keys that Argon2id derives from a passphrase.
// A Cost that is out of bounds fails in [New].
//
// ask is called when a key is needed that is not in memory: once per process for
// each file, as long as the passphrase is right. It may prompt a person. If it
// outlasts the context of the call that needs the key, that call fails, and the
// next call waits for the same answer: there are never two prompts at once. What
// ask returns is neither kept nor overwritten. Its error is passed on to the
// caller and must hold no secret.
//
// An empty passphrase is refused. A wrong one is [persistence.ErrWrongKey]. The bytes
// count as they are: nothing is trimmed, and nothing is normalised, so that an
// accented letter as one character is another passphrase than as two. The error says
// so where the passphrase has a character beyond ASCII, or ends in a line break, as
// what is read from a file often does.
func Passphrase(ask func(ctx context.Context) ([]byte, error), opts *PassphraseOptions) KeySource {
	p := &passphrase{described: "a key from a passphrase", ask: ask, cost: DefaultCost}
	if opts != nil && opts.Cost != (Cost{}) {
		p.cost = opts.Cost
	}
	return p
}

type passphrase struct {
	described
	ask  func(context.Context) ([]byte, error)
	cost Cost

	mu      sync.Mutex
	pending *answer // of a call of ask that is still running
	// Of the last passphrase, for the error if it is wrong:
	newline, beyondASCII bool
}

// answer is what ask returned, once done is closed.
type answer struct {
	ctx  context.Context // of the call that asked
	done chan struct{}
	get  func() ([]byte, error)
}

const argonSaltSize = 16

func (p *passphrase) Source() string { return "passphrase" }

func (p *passphrase) valid() error {
	if p.ask == nil {
		return errors.New("the function that asks for the passphrase is nil")
	}
	if !p.cost.valid() {
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
	if memory, work := p.usual(); cost.Memory > tolerance*memory || cost.work() > tolerance*work {
		return nil, remedy.Errorf("If the file is yours, use a program that is set to this cost. Otherwise remove it and sign in again.",
			"%w: the file asks for much more work for its passphrase (%s) than this program writes (%s)", persistence.ErrUnsupportedVersion, cost, p.cost)
	}
	return p.derive(ctx, salt, cost)
}

// hint returns what an error about a wrong passphrase adds: where the header asks
// for more work than usual, and where the passphrase has what is often not meant or
// comes in several forms.
func (p *passphrase) hint(ref string) (hint string) {
	_, cost, err := parsePassphraseRef(ref)
	if memory, work := p.usual(); err == nil && (cost.Memory > memory || cost.work() > work) {
		hint = fmt.Sprintf("; it asks for more work than this program writes (%s, not %s), so it may be from somebody else", cost, p.cost)
	}
	p.mu.Lock()
	newline, beyondASCII := p.newline, p.beyondASCII
	p.mu.Unlock()
	if newline {
		hint += "; the passphrase ends in a line break, which counts as a part of it"
	}
	if beyondASCII {
		hint += "; the passphrase has characters beyond ASCII, which systems write in different bytes, and is not normalised"
	}
	return hint
}

// String returns the cost for a person.
func (c Cost) String() string {
	return fmt.Sprintf("%d KiB, %d passes, %d lanes", c.Memory, c.Passes, c.Lanes)
}

// parsePassphraseRef reads "<id> m=… p=… salt=… t=…" in exactly the form that
// NewKey writes.
func parsePassphraseRef(ref string) (salt []byte, c Cost, err error) {
	malformed := remedy.With(remedyCorrupt, corrupt("its header has malformed parameters for a passphrase"))
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
	number := func(s string) uint64 { // 0 for any other form
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
		return nil, c, remedy.Errorf("If the file is from a newer program, update this one. Otherwise remove it and sign in again.",
			"%w: the file asks for more work for its passphrase (%d KiB, %d passes, %d lanes) than this version allows", persistence.ErrUnsupportedVersion, m, t, lanes)
	}
	return salt, Cost{Memory: uint32(m), Passes: uint32(t), Lanes: uint8(lanes)}, nil
}

// deriving has room for one: a derivation uses several cores and much memory.
var deriving = make(chan struct{}, 1)

// derive returns the key. When ctx ends, it leaves the question and the derivation
// behind.
func (p *passphrase) derive(ctx context.Context, salt []byte, c Cost) ([]byte, error) {
	secret, err := p.answer(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for the passphrase: %w", err)
	}
	if len(secret) == 0 {
		return nil, remedy.Errorf("Enter a passphrase that is not empty.", "%w: the passphrase is empty", persistence.ErrWrongKey)
	}
	p.mu.Lock()
	p.newline = bytes.HasSuffix(secret, []byte("\n"))
	p.beyondASCII = bytes.ContainsFunc(secret, func(r rune) bool { return r >= utf8.RuneSelf })
	p.mu.Unlock()
	key, err := within.Call(ctx, func() ([]byte, error) {
		select {
		case deriving <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		defer func() { <-deriving }()
		return argon2.IDKey(secret, salt, c.Passes, c.Memory, c.Lanes, keySize), nil
	})
	if err != nil {
		return nil, fmt.Errorf("deriving the key from the passphrase: %w", err)
	}
	return key, nil
}

// answer asks, or waits for a question that an earlier call left behind. An answer
// that nobody waited for is for the next call.
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
		} // else the question ended with the context of the call that asked, not with this one
	}
	return nil, context.Cause(ctx)
}
