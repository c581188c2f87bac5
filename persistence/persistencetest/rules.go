package persistencetest

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// rules are what Run checks, the plainest first: fix the
// first that is broken first.
var rules = []rule{
	{"Absent", "Load of what was never saved fails with persistence.ErrNotFound, which is also fs.ErrNotExist, and returns nil data.", 0, testAbsent},
	{"Empty", "Empty data is data: saved empty, it is loaded as an empty slice that is not nil, without an error.", 0, testEmpty},
	{"Bytes", "Load returns byte for byte what was saved, whatever the bytes: NUL, invalid UTF-8, line ends, blanks.", 0, testBytes},
	{"Large", "1 MiB is saved and loaded like any other data, or what Options.MaxSize says.", 0, testLarge},
	{"TooLarge", "Data larger than the backend takes is refused with persistence.ErrTooLarge, and what was stored stays.", limit, testTooLarge},
	{"Replace", "Save replaces what was stored with data, and nothing of the old data remains.", 0, testReplace},
	{"Ownership", "The caller may change its slice after Save, and what Load returned; what is stored stays as it was.", 0, testOwnership},
	{"DeleteNothing", "Delete of what is not there succeeds, the second time too.", 0, testDeleteNothing},
	{"Delete", "After Delete nothing is stored: Load fails with persistence.ErrNotFound, and a later Save works.", 0, testDelete},
	{"Reopen", "Another instance on the same storage, opened before or after, sees what was saved or deleted last.", 0, testReopen},
	{"Concurrent", "All methods may be called at once, from several instances; a Load during Saves returns one of the saved values, whole.", 0, testConcurrent},
	{"Cancelled", "With a cancelled context a call returns; it succeeds, or fails with an error that is context.Canceled.", 0, testCancelled},
	{"CancelledMidway", "A Save or Delete that is cancelled at any point leaves the old state or the new one, whole, and the new one if it returns nil.", 0, testCancelledMidway},
	{"Deadline", "With a context whose deadline has passed a call returns; it succeeds, or fails with an error that is context.DeadlineExceeded.", 0, testDeadline},
	{"Errors", "Every error is a *persistence.Error that names the operation and the backend, the latter as Describe does.", 0, testErrors},
	{"Secrets", "No error holds saved data, in any spelling, nor does a description.", 0, testSecrets},
	{"Corrupt", "Load of damaged data fails with persistence.ErrCorrupt, returns nil data and shows nothing of it; Delete removes it, and a later Save works.", damage, testCorrupt},
	{"Describe", "Describe names the backend, and says the same for every instance on a storage, whatever is stored.", describer, testDescribe},

	{"Revision", `Revision is "" exactly if nothing is stored, and fails in neither case.`, versioned, testRevision},
	{"LoadRevision", "LoadRevision returns what Load and Revision return, and a slice that is the caller's.", versioned, testLoadRevision},
	{"LoadRevisionFails", `A LoadRevision that fails returns nil data and either the stored revision or "".`, versioned, testLoadRevisionFails},
	{"OneMoment", "The data and the revision that LoadRevision returns are of one moment, even while others save.", versioned, testOneMoment},
	{"RevisionChanges", "A revision names one state for ever: other data never has it, not after a Delete, not in another storage. It is no counter.", versioned, testRevisionChanges},
	{"RevisionNoticed", "Revision notices at once what another instance saves or deletes, however quickly and of whatever length.", versioned, testRevisionNoticed},
	{"SaveIf", "SaveIf of the stored revision saves, and returns the revision that Revision returns then.", versioned, testSaveIf},
	{"SaveIfStale", "SaveIf of any revision but the stored one fails with persistence.ErrConflict and changes nothing.", versioned, testSaveIfStale},
	{"SaveIfAbsent", `SaveIf of "" saves only where nothing is stored, and SaveIf of a revision only where something is.`, versioned, testSaveIfAbsent},
	{"DeleteIf", `DeleteIf of the stored revision deletes; of any other it fails with persistence.ErrConflict and changes nothing. DeleteIf of "" succeeds where nothing is stored.`, versioned, testDeleteIf},
	{"OneWins", "Of all SaveIf and DeleteIf of one revision at once, from several instances, exactly one succeeds, and the others fail with persistence.ErrConflict.", versioned, testOneWins},

	{"LockExcludes", "Between Lock and unlock nobody else has the lock, neither in this instance nor in another; then one who waits gets it.", locker, testLockExcludes},
	{"LockTimeout", "Lock waits no longer than its context, and then fails with persistence.ErrLockTimeout, which is also the context's error.", locker, testLockTimeout},
	{"LockAbandoned", "A Lock whose context ended leaves the lock to others, and to later calls.", locker, testLockAbandoned},
	{"LockedCalls", "The holder of the lock can load, save and delete; no call waits for the lock that its caller has.", locker, testLockedCalls},
	{"NameExcludes", "LockName excludes all others of the same name, and times out as Lock does.", namedLocker, testNameExcludes},
	{"NamesIndependent", "The locks of two names are independent, whatever the names, and so is the one of Lock; calls work under each.", namedLocker, testNamesIndependent},

	{"Lease", "One owner at a time has the lease of what is stored, also while it is saved; its owner gets it again, and only its owner can release it.", leaser, testLease},
	{"LeaseEnds", "A lease ends by itself.", leaser, testLeaseEnds},

	{"SetAside", "SetAside of the stored revision leaves nothing stored; of any other it fails with persistence.ErrConflict and changes nothing.", versioned | setAsider, testSetAside},
}

func testAbsent(s *suite) {
	data, err := s.one().load(s.ctx())
	if !errors.Is(err, persistence.ErrNotFound) {
		s.Errorf("Load: %v, want persistence.ErrNotFound", err)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.Errorf("Load: the error is not fs.ErrNotExist: %v", err)
	}
	if data != nil {
		s.Errorf("Load: %d bytes beside the error, want nil", len(data))
	}
}

func testEmpty(s *suite) {
	for _, data := range [][]byte{{}, nil} {
		p := s.one()
		p.mustSave(data)
		got, err := p.load(s.ctx())
		if err != nil || got == nil || len(got) != 0 {
			s.Errorf("Load after Save(%#v): %#v, %v, want an empty slice", data, got, err)
		}
	}
}

func testBytes(s *suite) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	p := s.one()
	for _, data := range [][]byte{
		{'x'}, {0}, {0xff}, []byte(" "), []byte("\n"),
		[]byte("a\x00b\x00"), []byte("\x00\x00\x00\x00"), []byte("\xff\xfe\xc3\x28"),
		[]byte("\r\nline\r\n\tindented \n\n"), []byte("\ufeffmarked"), []byte(`{"AccessToken":{}}`),
		all,
	} {
		p.mustSave(data)
		p.mustHold(fmt.Sprintf("after Save(%s)", summary(data)), data)
	}
}

func testLarge(s *suite) {
	p := s.one()
	data := s.value(1, s.max())
	if err := p.save(s.ctx(), data); errors.Is(err, persistence.ErrTooLarge) && s.opts.MaxSize == 0 {
		s.Fatalf("Save of %d bytes: %v (a backend that takes less says so in Options.MaxSize)", len(data), err)
	} else if err != nil {
		s.Fatalf("Save of %d bytes: %v", len(data), err)
	}
	p.mustHold(fmt.Sprintf("after Save of %d bytes", len(data)), data)
}

func testTooLarge(s *suite) {
	p := s.one()
	old := s.value(1, 100)
	p.mustSave(old)
	large := make([]byte, s.max()+1)
	if err := p.save(s.ctx(), large); !errors.Is(err, persistence.ErrTooLarge) {
		s.Errorf("Save of %d bytes: %v, want persistence.ErrTooLarge", len(large), err)
	}
	p.mustHold("after a Save that was too large", old)
	if s.has&versioned != 0 {
		if _, err := p.saveIf(s.ctx(), large, p.mustRevision()); !errors.Is(err, persistence.ErrTooLarge) {
			s.Errorf("SaveIf of %d bytes: %v, want persistence.ErrTooLarge", len(large), err)
		}
		p.mustHold("after a SaveIf that was too large", old)
	}
}

func testReplace(s *suite) {
	p := s.one()
	for n, size := range []int{10_000, 60, 10_000, 9_999, 0, 200} {
		data := s.value(n, size)
		p.mustSave(data)
		p.mustHold(fmt.Sprintf("after Save number %d", n+1), data)
	}
}

func testOwnership(s *suite) {
	p := s.one()
	want := s.value(1, 100)
	mine := slices.Clone(want)
	p.mustSave(mine)
	clear(mine)
	p.mustHold("after the slice given to Save was changed", want)
	data, _ := p.load(s.ctx())
	clear(data)
	p.mustHold("after the slice that Load returned was changed", want)
}

func testDeleteNothing(s *suite) {
	p := s.one()
	p.mustDelete()
	p.mustDelete()
	p.mustSave([]byte("x"))
	p.mustDelete()
	p.mustDelete()
}

func testDelete(s *suite) {
	p := s.one()
	for n := range 2 {
		data := s.value(n, 100)
		p.mustSave(data)
		p.mustHold("after Save", data)
		p.mustDelete()
		p.mustHold("after Delete", absent)
	}
}

func testReopen(s *suite) {
	open := s.fresh()
	a := s.instances(open, 1)[0]
	early := s.instances(open, 1)[0]
	early.mustHold("before any Save", absent)
	for n := range 3 {
		data := s.value(n, 100)
		a.mustSave(data)
		early.mustHold("for another instance after Save", data)
		s.instances(open, 1)[0].mustHold("for a new instance after Save", data)
	}
	a.mustDelete()
	early.mustHold("for another instance after Delete", absent)
	s.instances(open, 1)[0].mustHold("for a new instance after Delete", absent)
	data := s.value(9, 100)
	early.mustSave(data)
	a.mustHold("for the first instance after another's Save", data)
}

func testConcurrent(s *suite) {
	const saves, writers = 25, 2 // at least so many, and until others have loaded
	is := s.many(writers)
	ctx := s.ctx()
	var values [][]byte
	for n := range writers * saves {
		values = append(values, s.value(n, 20_000+n))
	}
	first := s.value(writers*saves, 20_000)
	is[0].mustSave(first)
	var (
		writing, all sync.WaitGroup
		loads        atomic.Int64
		done         = make(chan struct{})
	)
	for w, i := range is {
		mine := values[w*saves : (w+1)*saves]
		writing.Go(func() {
			for n := 0; n < saves || n < 1000 && loads.Load() < 20; n++ {
				if err := i.p.Save(ctx, mine[n%saves]); err != nil {
					s.Errorf("Save beside others: %v", err)
					return
				}
				runtime.Gosched() // a backend in memory never waits, and would keep the processor
			}
		})
		all.Go(func() {
			for over := false; !over; {
				select {
				case <-done:
					over = true // and one Load more, of the last value
				default:
				}
				data, err := i.p.Load(ctx)
				loads.Add(1)
				runtime.Gosched()
				if err != nil {
					s.Errorf("Load beside Saves: %v", err)
					return
				}
				if !same(data, first) && !slices.ContainsFunc(values, func(v []byte) bool { return same(v, data) }) {
					s.Errorf("Load beside Saves: %d bytes that were never saved", len(data))
					return
				}
			}
		})
	}
	all.Go(func() {
		defer close(done)
		writing.Wait()
	})
	s.within("a Load or Save beside others", all.Wait)
}

// attempt is one call with a context, for rules about contexts and errors.
type attempt struct {
	name string
	call func(ctx context.Context) error
}

// attempts returns every call that i offers. Save and SaveIf save data.
func (i *instance) attempts(data []byte) []attempt {
	as := []attempt{
		{"Load", func(ctx context.Context) error { _, err := i.load(ctx); return err }},
		{"Save", func(ctx context.Context) error { return i.save(ctx, data) }},
		{"Delete", i.delete},
	}
	if i.s.has&versioned != 0 {
		as = append(as,
			attempt{"Revision", func(ctx context.Context) error { _, err := i.revision(ctx); return err }},
			attempt{"LoadRevision", func(ctx context.Context) error { _, _, err := i.loadRevision(ctx); return err }},
			attempt{"SaveIf", func(ctx context.Context) error { _, err := i.saveIf(ctx, data, i.mustRevision()); return err }},
			attempt{"DeleteIf", func(ctx context.Context) error { return i.deleteIf(ctx, i.mustRevision()) }},
		)
	}
	lock := func(ctx context.Context, lock func(context.Context) (func() error, error)) error {
		unlock, err := lock(ctx)
		if err == nil {
			i.mustUnlock(unlock)
		}
		return err
	}
	if i.s.has&locker != 0 {
		as = append(as, attempt{"Lock", func(ctx context.Context) error { return lock(ctx, i.lock) }})
	}
	if i.s.has&namedLocker != 0 {
		as = append(as, attempt{"LockName", func(ctx context.Context) error {
			return lock(ctx, func(ctx context.Context) (func() error, error) { return i.lockName(ctx, "name") })
		}})
	}
	return as
}

// testEnded tries every call with a context that ended before it.
func testEnded(s *suite, ended context.Context) {
	p := s.one()
	old := s.value(1, 100)
	for _, a := range p.attempts(s.value(2, 100)) {
		p.mustSave(old)
		if err := a.call(ended); err != nil && !errors.Is(err, ended.Err()) {
			s.Errorf("%s: %v, want success or an error that is the context's: %v", a.name, err, ended.Err())
		}
	}
}

func testCancelled(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx())
	cancel()
	testEnded(s, ctx)
}

func testDeadline(s *suite) {
	ctx, cancel := context.WithDeadline(s.ctx(), time.Unix(0, 0))
	defer cancel()
	testEnded(s, ctx)
}

// testCancelledMidway cancels a call when it looks at its context for the
// first time, then the second and so on, until a call ends before it.
func testCancelledMidway(s *suite) {
	p := s.one()
	old, data := s.value(1, 5_000), s.value(2, 5_000)
	for _, a := range p.attempts(data) {
		after := old
		switch a.name {
		case "Save", "SaveIf":
			after = data
		case "Delete", "DeleteIf":
			after = absent
		}
		const enough = 100
		for n := 1; n <= enough; n++ {
			p.mustSave(old)
			ctx := newLookedAt(s.ctx(), n)
			err := a.call(ctx)
			when := fmt.Sprintf("after a %s cancelled when it looked at its context for time %d (%v)", a.name, n, err)
			if err == nil {
				p.mustHold(when, after)
			} else {
				p.mustHold(when, old, after)
			}
			if ctx.Context.Err() == nil {
				break // it ended before its n-th look
			}
		}
	}
}

// lookedAt is a context that is cancelled when Done or Err is called for the
// n-th time.
type lookedAt struct {
	context.Context
	cancel context.CancelFunc
	n      int64
	looks  atomic.Int64
}

func newLookedAt(parent context.Context, n int) *lookedAt {
	ctx, cancel := context.WithCancel(parent)
	return &lookedAt{Context: ctx, cancel: cancel, n: int64(n)}
}

func (l *lookedAt) look() {
	if l.looks.Add(1) == l.n {
		l.cancel()
	}
}

func (l *lookedAt) Done() <-chan struct{} { l.look(); return l.Context.Done() }
func (l *lookedAt) Err() error            { l.look(); return l.Context.Err() }

// failures returns the errors of calls that fail: of what is not there, with
// an ended context, of a conflict, of a lock that is taken, of too much data.
// Before them secret is saved.
func (s *suite) failures(secret []byte) map[string]error {
	p := s.one()
	all := make(map[string]error)
	_, all["Load of nothing"] = p.load(s.ctx())
	if s.has&versioned != 0 {
		_, _, all["LoadRevision of nothing"] = p.loadRevision(s.ctx())
	}
	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	for _, a := range p.attempts(secret) {
		p.mustSave(secret)
		all[a.name+" with a cancelled context"] = a.call(ended)
	}
	p.mustSave(secret)
	if s.opts.MaxSize > 0 {
		all["Save of too much"] = p.save(s.ctx(), slices.Concat(secret, make([]byte, s.max())))
	}
	if s.has&versioned != 0 {
		_, all["SaveIf of another revision"] = p.saveIf(s.ctx(), secret, "another")
		_, all["SaveIf of no revision"] = p.saveIf(s.ctx(), secret, "")
		all["DeleteIf of another revision"] = p.deleteIf(s.ctx(), "another")
	}
	if s.has&locker != 0 {
		unlock := p.mustLock()
		_, all["Lock of what is locked"] = p.lock(s.briefly())
		unlock()
	}
	if s.has&namedLocker != 0 {
		unlock := p.mustLockName("name")
		_, all["LockName of what is locked"] = p.lockName(s.briefly(), "name")
		unlock()
	}
	for call, err := range all {
		if err == nil {
			delete(all, call)
		}
	}
	return all
}

func testErrors(s *suite) {
	backend := persistence.Describe(s.one().p).Backend
	for call, err := range s.failures(s.value(1, 100)) {
		var e *persistence.Error
		ok := errors.As(err, &e)
		switch {
		case !ok:
			s.Errorf("%s: %T (%v) is not a *persistence.Error", call, err, err)
		case e.Op == "" || e.Backend == "" || e.Err == nil:
			s.Errorf("%s: %#v lacks its Op, Backend or Err", call, e)
		case backend != "" && e.Backend != backend:
			s.Errorf("%s: the error's Backend is %q, Describe says %q", call, e.Backend, backend)
		}
	}
}

const (
	secret     = `{"secret":"` + secretCore + `"}`
	secretCore = "planted-3f9c5a71e8d24b06"
)

// leaks fails if text shows secret in some spelling.
func (s *suite) leaks(where, text string) {
	// Base64 of the core alone differs from that of the core within secret, so
	// both are looked for.
	for _, b := range [][]byte{[]byte(secretCore), []byte(secret)} {
		for _, spelling := range []string{string(b), hex.EncodeToString(b), strings.Trim(fmt.Sprint(b), "[]"),
			base64.RawStdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b)} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(spelling)) {
				s.Errorf("%s shows the data that is stored", where)
				return
			}
		}
	}
}

// errorLeaks is leaks for an error and all that it wraps.
func (s *suite) errorLeaks(call string, err error) {
	for _, format := range []string{"%v", "%+v", "%#v"} {
		for e := err; e != nil; e = errors.Unwrap(e) {
			s.leaks("the error of "+call, fmt.Sprintf(format, e))
		}
	}
}

func testSecrets(s *suite) {
	for call, err := range s.failures([]byte(secret)) {
		s.errorLeaks(call, err)
	}
	p := s.one()
	p.mustSave([]byte(secret))
	s.leaks("Describe", fmt.Sprintf("%#v", persistence.Describe(p.p)))
	if s.has&versioned != 0 {
		s.leaks("Revision", p.mustRevision())
	}
}

func testCorrupt(s *suite) {
	p, other := s.two()
	p.mustSave([]byte(secret))
	s.opts.Damage(s.TB, p.p)
	check := func(call string, err error) {
		if !errors.Is(err, persistence.ErrCorrupt) {
			s.Errorf("%s of damaged data: %v, want persistence.ErrCorrupt", call, err)
		}
		s.errorLeaks(call, err)
	}
	for _, i := range []*instance{p, other} { // the first may still have in memory what it saved
		data, err := i.load(s.ctx())
		check("Load", err)
		if data != nil {
			s.Errorf("Load of damaged data: %d bytes beside the error, want nil", len(data))
		}
		if s.has&versioned != 0 {
			_, _, err := i.loadRevision(s.ctx())
			check("LoadRevision", err)
		}
	}
	p.mustDelete()
	p.mustHold("after Delete of damaged data", absent)
	p.mustSave(s.value(1, 100))
	other.mustHold("after a Save where damaged data was deleted", s.value(1, 100))
}

func testDescribe(s *suite) {
	open := s.fresh()
	p := s.instances(open, 1)[0]
	want := persistence.Describe(p.p)
	if want.Backend == "" {
		s.Errorf("Describe names no backend: %+v", want)
	}
	check := func(when string, p *instance) {
		if got := persistence.Describe(p.p); got != want {
			s.Errorf("Describe %s: %+v, at first it was %+v", when, got, want)
		}
	}
	p.mustSave(s.value(1, 100))
	check("after Save", p)
	check("of another instance", s.instances(open, 1)[0])
	p.mustDelete()
	check("after Delete", p)
}

func testRevision(s *suite) {
	p := s.one()
	check := func(when string, stored bool) {
		if rev := p.mustRevision(); (rev != "") != stored {
			s.Errorf("Revision %s: %q", when, rev)
		}
	}
	check("of nothing", false)
	for _, data := range [][]byte{s.value(1, 100), {}} {
		p.mustSave(data)
		check(fmt.Sprintf("of %d bytes", len(data)), true)
		p.mustDelete()
		check("after Delete", false)
	}
}

func testLoadRevision(s *suite) {
	p := s.one()
	if data, rev, err := p.loadRevision(s.ctx()); data != nil || rev != "" || !errors.Is(err, persistence.ErrNotFound) {
		s.Errorf("LoadRevision of nothing: %s, %q, %v, want nil, \"\" and persistence.ErrNotFound", summary(data), rev, err)
	}
	for n, size := range []int{100, 0, 5_000} {
		want := s.value(n, size)
		p.mustSave(want)
		rev := p.mustRevision()
		for range 2 {
			data, r, err := p.loadRevision(s.ctx())
			if err != nil || !same(data, want) || r != rev {
				s.Fatalf("LoadRevision: %s, %q, %v, want %s, %q", summary(data), r, err, summary(want), rev)
			}
			clear(data)
		}
		if again := p.mustRevision(); again != rev {
			s.Errorf("Revision: %q, then %q, and nobody saved", rev, again)
		}
	}
}

// testLoadRevisionFails cancels LoadRevision as testCancelledMidway does.
func testLoadRevisionFails(s *suite) {
	p := s.one()
	p.mustSave(s.value(1, 5_000))
	rev := p.mustRevision()
	const enough = 100
	for n := 1; n <= enough; n++ {
		ctx := newLookedAt(s.ctx(), n)
		data, r, err := p.loadRevision(ctx)
		if err != nil && (data != nil || r != "" && r != rev) {
			s.Errorf("LoadRevision: %s, %q beside the error %v, want nil, and %q or \"\"", summary(data), r, err, rev)
		}
		if ctx.Context.Err() == nil {
			break // it ended before its n-th look
		}
	}
}

func testOneMoment(s *suite) {
	const saves = 50 // at least so many, and until the other has loaded
	writer, reader := s.two()
	ctx := s.ctx()
	states := make(map[string][]byte) // by revision
	seen := make(map[string][]byte)
	data := s.value(0, 5_000)
	rev := writer.mustSaveIf(data, "")
	states[rev] = data
	var (
		both  sync.WaitGroup
		loads atomic.Int64
		done  = make(chan struct{})
	)
	both.Go(func() {
		defer close(done)
		for n := 1; n <= saves || n <= 1000 && loads.Load() < 20; n++ {
			data := s.value(n, 5_000)
			now, err := writer.versioned().SaveIf(ctx, data, rev)
			if err != nil {
				s.Errorf("SaveIf of the revision that is stored: %v", err)
				return
			}
			rev = now
			states[rev] = data
			runtime.Gosched()
		}
	})
	both.Go(func() {
		for over := false; !over; {
			select {
			case <-done:
				over = true
			default:
			}
			data, rev, err := reader.versioned().LoadRevision(ctx)
			loads.Add(1)
			runtime.Gosched()
			if err != nil {
				s.Errorf("LoadRevision beside SaveIfs: %v", err)
				return
			}
			if was, ok := seen[rev]; ok && !same(was, data) {
				s.Errorf("LoadRevision returned revision %q with two different data", rev)
				return
			}
			seen[rev] = data
		}
	})
	s.within("a LoadRevision or SaveIf beside others", both.Wait)
	for rev, data := range seen {
		if want, ok := states[rev]; !ok {
			s.Errorf("LoadRevision returned revision %q, which no SaveIf returned", rev)
		} else if !same(data, want) {
			s.Errorf("LoadRevision returned the data of one moment and the revision of another")
		}
	}
}

func testRevisionChanges(s *suite) {
	states := make(map[string][]byte) // by revision
	check := func(when string, p *instance, data []byte) {
		p.mustSave(data)
		rev := p.mustRevision()
		if was, ok := states[rev]; ok && !same(was, data) {
			s.Fatalf("%s: revision %q again, for other data", when, rev)
		}
		states[rev] = data
	}
	for storage := range 2 {
		p := s.one()
		for n := range 20 {
			check("saved anew, of equal length", p, s.value(100*storage+n, 100))
		}
		// Long and different only in the last byte.
		data := s.value(100*storage+30, 5_000)
		for n := range 3 {
			data = slices.Clone(data)
			data[len(data)-1] = byte(n)
			check("saved anew with another last byte", p, data)
		}
		for n := range 5 {
			p.mustDelete()
			check("saved anew after Delete", p, s.value(100*storage+40+n, 100))
		}
	}
}

func testRevisionNoticed(s *suite) {
	a, b := s.two()
	last := b.mustRevision()
	check := func(change string) {
		s.Helper()
		now := b.mustRevision()
		if now == last {
			s.Fatalf("Revision is %q as before, though another instance has %s", now, change)
		}
		last = now
	}
	for n := range 50 {
		a.mustSave(s.value(n, 100))
		check("saved")
		if n%10 == 9 {
			a.mustDelete()
			check("deleted")
		}
	}
}

func testSaveIf(s *suite) {
	a, b := s.two()
	rev := ""
	for n := range 4 {
		mine := s.value(n, 100)
		rev = a.mustSaveIf(mine, rev)
		clear(mine) // SaveIf keeps no reference
		a.mustHold("after SaveIf", s.value(n, 100))
		for _, i := range []*instance{a, b} {
			if now := i.mustRevision(); now != rev {
				s.Fatalf("SaveIf returned revision %q, Revision says %q", rev, now)
			}
		}
		a, b = b, a
	}
	// A revision that came from LoadRevision or follows a Save is as good.
	a.mustSave(s.value(10, 100))
	_, rev, err := b.loadRevision(s.ctx())
	if err != nil {
		s.Fatalf("LoadRevision: %v", err)
	}
	b.mustSaveIf(s.value(11, 100), rev)
	a.mustHold("after SaveIf", s.value(11, 100))
}

// mustConflict ends the test unless err is ErrConflict and p still holds state.
func mustConflict(p *instance, what string, err error, state []byte) {
	p.s.Helper()
	if !errors.Is(err, persistence.ErrConflict) {
		p.s.Errorf("%s: %v, want persistence.ErrConflict", what, err)
	}
	p.mustHold("after "+what, state)
}

func testSaveIfStale(s *suite) {
	a, b := s.two()
	a.mustSave(s.value(1, 100))
	stale := a.mustRevision()
	b.mustSave(s.value(2, 100))
	now := b.mustRevision()
	for _, rev := range []string{stale, "another", now + "x"} {
		_, err := a.saveIf(s.ctx(), s.value(3, 100), rev)
		mustConflict(a, "SaveIf of a revision that is not the stored one", err, s.value(2, 100))
	}
	if rev := a.mustRevision(); rev != now {
		s.Errorf("a SaveIf that failed changed the revision from %q to %q", now, rev)
	}
	// A Delete does not bring an old revision back to life.
	b.mustDelete()
	b.mustSave(s.value(4, 100))
	b.mustSave(s.value(5, 100))
	_, err := a.saveIf(s.ctx(), s.value(3, 100), now)
	mustConflict(a, "SaveIf of a revision from before a Delete", err, s.value(5, 100))
}

func testSaveIfAbsent(s *suite) {
	a, b := s.two()
	_, err := a.saveIf(s.ctx(), s.value(1, 100), "another")
	mustConflict(a, "SaveIf of a revision where nothing is stored", err, absent)
	a.mustSaveIf(s.value(2, 100), "")
	_, err = b.saveIf(s.ctx(), s.value(3, 100), "")
	mustConflict(b, `SaveIf of "" where something is stored`, err, s.value(2, 100))
	a.mustSave(nil)
	_, err = b.saveIf(s.ctx(), s.value(3, 100), "")
	mustConflict(b, `SaveIf of "" where empty data is stored`, err, []byte{})
	rev := a.mustRevision()
	a.mustDelete()
	_, err = b.saveIf(s.ctx(), s.value(4, 100), rev)
	mustConflict(b, "SaveIf of the last revision after Delete", err, absent)
	b.mustSaveIf(s.value(5, 100), "")
}

func testDeleteIf(s *suite) {
	a, b := s.two()
	if err := a.deleteIf(s.ctx(), ""); err != nil {
		s.Errorf(`DeleteIf of "" where nothing is stored: %v`, err)
	}
	mustConflict(a, "DeleteIf of a revision where nothing is stored", a.deleteIf(s.ctx(), "another"), absent)
	a.mustSave(s.value(1, 100))
	stale := a.mustRevision()
	b.mustSave(s.value(2, 100))
	now := b.mustRevision()
	for _, rev := range []string{stale, "", "another"} {
		mustConflict(a, fmt.Sprintf("DeleteIf of %q, which is not the stored revision", rev), a.deleteIf(s.ctx(), rev), s.value(2, 100))
	}
	if err := a.deleteIf(s.ctx(), now); err != nil {
		s.Fatalf("DeleteIf of the revision that is stored: %v", err)
	}
	b.mustHold("after DeleteIf", absent)
}

func testOneWins(s *suite) {
	const rounds, contenders = 10, 8
	is := s.many(3)
	for round := range rounds {
		// In every other round nothing is stored at first.
		rev := ""
		is[0].mustSave(s.value(round, 100))
		if round%2 == 0 {
			rev = is[0].mustRevision()
		} else {
			is[0].mustDelete()
		}
		var (
			ctx   = s.ctx()
			start = make(chan struct{})
			all   sync.WaitGroup
			won   = make([]bool, contenders)
		)
		for c := range contenders {
			all.Go(func() {
				p := is[c%len(is)].versioned()
				<-start
				var err error
				if rev != "" && c%4 == 3 {
					err = p.DeleteIf(ctx, rev)
				} else {
					_, err = p.SaveIf(ctx, s.value(100+c, 100), rev)
				}
				won[c] = err == nil
				if err != nil && !errors.Is(err, persistence.ErrConflict) {
					s.Errorf("SaveIf or DeleteIf beside others: %v, want success or persistence.ErrConflict", err)
				}
			})
		}
		close(start)
		s.within("a SaveIf or DeleteIf beside others", all.Wait)
		var winners []int
		for c, w := range won {
			if w {
				winners = append(winners, c)
			}
		}
		if len(winners) != 1 {
			s.Fatalf("%d of %d SaveIf and DeleteIf of one revision succeeded, want one", len(winners), contenders)
		}
		want := s.value(100+winners[0], 100)
		if rev != "" && winners[0]%4 == 3 {
			want = absent
		}
		for _, i := range is {
			i.mustHold("after the one success", want)
		}
	}
}

// lockFunc is Lock, or LockName of a certain name, of an instance.
type lockFunc func(ctx context.Context, p persistence.Persistence) (func() error, error)

func lockOf(ctx context.Context, p persistence.Persistence) (func() error, error) {
	return p.(persistence.Locker).Lock(ctx)
}

func lockOfName(name string) lockFunc {
	return func(ctx context.Context, p persistence.Persistence) (func() error, error) {
		return p.(persistence.NamedLocker).LockName(ctx, name)
	}
}

// testExcludes lets goroutines of two instances crowd for one lock.
func testExcludes(s *suite, lock lockFunc) {
	const goroutines, rounds = 3, 10 // of each instance
	a, b := s.two()
	var (
		ctx            = s.ctx()
		start          = make(chan struct{})
		all            sync.WaitGroup
		inside, passed atomic.Int64
	)
	for _, i := range []*instance{a, b} {
		for range goroutines {
			all.Go(func() {
				<-start
				for range rounds {
					unlock, err := lock(ctx, i.p)
					if err != nil {
						s.Errorf("waiting for the lock: %v", err)
						return
					}
					if n := inside.Add(1); n != 1 {
						s.Errorf("%d have the lock at once", n)
					}
					for range 10 {
						runtime.Gosched() // a chance for those that the lock does not keep out
					}
					passed.Add(1)
					inside.Add(-1)
					if err := unlock(); err != nil {
						s.Errorf("unlock: %v", err)
						return
					}
				}
			})
		}
	}
	close(start)
	s.within("a Lock beside others", all.Wait)
	if n := passed.Load(); n != 2*goroutines*rounds && !s.Failed() {
		s.Errorf("the lock was had %d times, want %d", n, 2*goroutines*rounds)
	}
}

func testLockExcludes(s *suite) {
	testExcludes(s, lockOf)
	a, b := s.two()
	unlock := a.mustLock()
	defer unlock()
	for _, i := range []*instance{a, b} {
		if _, err := i.lock(s.briefly()); err == nil {
			s.Errorf("Lock succeeded while another had the lock")
		}
	}
}

// mustTimeOut checks the error of waiting in vain for a lock.
func (s *suite) mustTimeOut(what string, err, cause error) {
	s.Helper()
	if !errors.Is(err, persistence.ErrLockTimeout) || !errors.Is(err, cause) {
		s.Errorf("%s: %v, want persistence.ErrLockTimeout that is also %q", what, err, cause)
	}
}

func testLockTimeout(s *suite) {
	a, b := s.two()
	unlock := a.mustLock()
	defer unlock()
	got, err := b.lock(s.briefly())
	s.mustTimeOut("Lock of what is locked", err, context.DeadlineExceeded)
	if got != nil {
		s.Errorf("Lock returned an unlock function beside its error")
	}
	ctx, cancel := context.WithCancel(s.ctx())
	cancel()
	_, err = b.lock(ctx)
	s.mustTimeOut("Lock of what is locked, cancelled", err, context.Canceled)
}

func testLockAbandoned(s *suite) {
	a, b := s.two()
	for range 3 {
		unlock := a.mustLock()
		for _, i := range []*instance{a, b} {
			if got, err := i.lock(s.briefly()); err == nil {
				i.mustUnlock(got) // the business of LockExcludes
			}
		}
		unlock()
		b.mustLock()()
		a.mustLock()()
	}
}

// testCallsUnder makes each call while its caller holds a lock.
func testCallsUnder(s *suite, p *instance, when string) {
	data := s.value(1, 100)
	for _, a := range p.attempts(data) {
		if a.name == "Lock" || a.name == "LockName" {
			continue
		}
		if a.name == "Load" || a.name == "LoadRevision" {
			p.mustSave(data)
		}
		if err := a.call(s.ctx()); err != nil {
			s.Errorf("%s %s: %v", a.name, when, err)
		}
	}
}

func testLockedCalls(s *suite) {
	p := s.one()
	unlock := p.mustLock()
	testCallsUnder(s, p, "by the holder of the lock")
	p.mustSave(s.value(2, 100))
	unlock()
	p.mustHold("after a Save by the holder of the lock", s.value(2, 100))
}

func testNameExcludes(s *suite) {
	testExcludes(s, lockOfName("name"))
	a, b := s.two()
	unlock := a.mustLockName("name")
	for _, i := range []*instance{a, b} {
		_, err := i.lockName(s.briefly(), "name")
		s.mustTimeOut("LockName of what is locked", err, context.DeadlineExceeded)
	}
	unlock()
	b.mustLockName("name")()
}

func testNamesIndependent(s *suite) {
	a, b := s.two()
	// Names are any strings, not parts of a path.
	names := []string{"a", "A", "", "a b", "a/b", "../a", ".", "/", "a\x00", "\xff", "lock", strings.Repeat("n", 300)}
	for n, name := range names {
		i := []*instance{a, b}[n%2]
		defer i.mustLockName(name)()
	}
	testCallsUnder(s, a, "by the holder of named locks")
	for _, i := range []*instance{a, b} {
		i.mustLock()()
	}
}

func (i *instance) mustLease(owner string, d time.Duration) bool {
	i.s.Helper()
	got, err := i.p.(persistence.Leaser).Lease(i.s.ctx(), owner, d)
	if err != nil {
		i.s.Fatalf("Lease: %v", err)
	}
	return got
}

func (i *instance) mustRelease(owner string) {
	i.s.Helper()
	if err := i.p.(persistence.Leaser).Release(i.s.ctx(), owner); err != nil {
		i.s.Fatalf("Release: %v", err)
	}
}

func testLease(s *suite) {
	a, b := s.two()
	a.mustSave(s.value(1, 100))
	expect := func(when string, i *instance, owner string, want bool) {
		s.Helper()
		if got := i.mustLease(owner, time.Hour); got != want {
			s.Fatalf("Lease by %s %s: %v, want %v", owner, when, got, want)
		}
	}
	expect("at first", a, "a", true)
	expect("while a has it", b, "b", false)
	expect("who has it", a, "a", true)
	b.mustSave(s.value(2, 100))
	expect("after a save", b, "b", false)
	b.mustRelease("b")
	expect("after a Release by another owner", b, "b", false)
	a.mustHold("under a lease", s.value(2, 100))
	a.mustRelease("a")
	a.mustRelease("a")
	expect("after the owner's Release", b, "b", true)
	expect("while b has it", a, "a", false)
	b.mustRelease("b")
}

func testLeaseEnds(s *suite) {
	a, b := s.two()
	a.mustSave(s.value(1, 100))
	if !a.mustLease("a", 100*time.Millisecond) {
		s.Fatalf("Lease: false, and nobody has it")
	}
	for giveUp := time.Now().Add(s.patience()); !b.mustLease("b", time.Minute); <-time.After(10 * time.Millisecond) {
		if time.Now().After(giveUp) {
			s.Fatalf("Lease: false, though the lease of 100 ms was taken %v ago", s.patience())
		}
	}
}

func testSetAside(s *suite) {
	p, other := s.two()
	stale := func(when, rev string) {
		s.Helper()
		if err := p.setAside(s.ctx(), rev); !errors.Is(err, persistence.ErrConflict) {
			s.Errorf("SetAside %s: %v, want persistence.ErrConflict", when, err)
		}
	}
	stale("where nothing is stored", "another")
	data := s.value(1, 100)
	p.mustSave(data)
	former := p.mustRevision()
	stale("of a revision that never was", "another")
	stale(`of ""`, "")
	data = s.value(2, 100)
	other.mustSave(data)
	stale("of a former revision", former)
	p.mustHold("after SetAside of another revision", data)
	if s.opts.Damage != nil {
		s.opts.Damage(s.TB, p.p)
	}
	rev, err := other.revision(s.ctx())
	if err != nil {
		_, rev, _ = other.loadRevision(s.ctx()) // which has it also with an error
	}
	if err := p.setAside(s.ctx(), rev); err != nil && s.opts.Damage == nil && !errors.Is(err, persistence.ErrConflict) {
		p.mustHold("after SetAside failed", data) // it may refuse what it can read
		return
	} else if err != nil {
		s.Fatalf("SetAside of the revision that is stored: %v", err)
	}
	p.mustHold("after SetAside", absent)
	p.mustSave(s.value(3, 100))
	other.mustHold("after SetAside and Save", s.value(3, 100))
}
