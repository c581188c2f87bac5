package encrypted

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// desktop is a machine as the tests know one.
var desktop = machine{id: "92f6a4d1c5b84a8bb2a3f0a3c1d7e9f0", user: "1000", boot: "boot 1", userns: "user:[1]"}

// on returns the File at path as on that machine.
func on(t testing.TB, m machine, path string, s KeySource) *File {
	t.Helper()
	f := newFile(t, path, s)
	f.machine = func() *machine { return &m }
	return f
}

// under is a ring under another word.
type under struct {
	*ring
	word string
}

func (u under) Source() string { return u.word }

// way is a way in which a source can say "not there".
type way struct {
	word       string
	from, to   machine
	now        func(r *ring) // what the source is like when the key is asked for
	load, keep string        // classes of Load, and of what writes
}

// ways returns every such way. What package keyring answers where its error is given
// here is shown by its tests TestSecuritySessions, TestSecurityKeysThatMayBeElsewhere,
// TestCredentialManagerSessions, TestSecretServiceRefuses, TestForeignBus and
// TestSecretServiceKeysThatMayBeElsewhere.
func ways() map[string]way {
	changed := func(change func(m *machine)) machine { m := desktop; change(&m); return m }
	container := changed(func(m *machine) { m.id = "" })
	restarted := changed(func(m *machine) { m.boot = "boot 2" })
	namespace := changed(func(m *machine) { m.userns = "user:[2]" })
	another := changed(func(m *machine) { m.id, m.boot = "another", "boot 7" })
	sameKernel := changed(func(m *machine) { m.id = "another" })
	otherUser := changed(func(m *machine) { m.user = "1001" })
	restartedContainer := changed(func(m *machine) { m.id, m.boot = "", "boot 2" })
	named := func(m machine, host string) machine { m.host = host; return m }
	pool1, pool2 := named(desktop, "pool-1"), named(desktop, "pool-2")
	noBoot := changed(func(m *machine) { m.boot, m.userns = "", "" })

	locked := remedy.Errorf("Unlock it.", "%w", persistence.ErrKeyringLocked)
	unsure := remedy.Errorf("Look at it.", "%w: the peer was not checked", persistence.ErrUnavailable)
	noSession := remedy.Errorf("Log in.", "%w: this session does not have its user's keyring", persistence.ErrUnavailable)
	stores := func(*ring) {}
	keepsNothing := func(r *ring) {
		r.before = func(call string) error {
			if call == "new" {
				return unsure
			}
			return nil
		}
	}
	says := func(err error) func(r *ring) {
		return func(r *ring) { r.before = func(string) error { return err } }
	}
	return map[string]way{
		"the same machine and user, and a new key is kept":     {"keyring", desktop, desktop, stores, "key-missing", "key-missing"},
		"the same, after a restart of the machine":             {"keyring", desktop, restarted, stores, "key-missing", "key-missing"},
		"the same, and no new key is kept":                     {"keyring", desktop, desktop, keepsNothing, "key-missing", "unavailable"},
		"the keyring is locked":                                {"keyring", desktop, desktop, says(locked), "locked", "locked"},
		"it is not known who answers":                          {"keyring", desktop, desktop, says(unsure), "unavailable", "unavailable"},
		"macOS: cron or a daemon, without the user's keychain": {"keyring", desktop, desktop, says(noSession), "unavailable", "unavailable"},
		"macOS: no default keychain, or another $HOME":         {"keyring", desktop, desktop, says(noSession), "unavailable", "unavailable"},
		"macOS: the link to its security server has ended":     {"keyring", desktop, desktop, says(noSession), "unavailable", "unavailable"},
		"macOS: a dialog that nobody answers":                  {"keyring", desktop, desktop, says(locked), "locked", "locked"},
		"macOS: the keychain is locked, as over SSH":           {"keyring", desktop, desktop, says(locked), "locked", "locked"},
		"macOS: its user declines to unlock the keychain":      {"keyring", desktop, desktop, says(locked), "locked", "locked"},
		"macOS: the login keychain is not searched":            {"keyring", desktop, desktop, says(noSession), "unavailable", "unavailable"},
		"macOS: a keychain on a disk that is not mounted":      {"keyring", desktop, desktop, says(noSession), "unavailable", "unavailable"},
		"macOS: a keychain that a sandbox hides":               {"keyring", desktop, desktop, says(noSession), "unavailable", "unavailable"},
		"Windows: a logon without the profile":                 {"keyring", desktop, desktop, says(noSession), "unavailable", "unavailable"},
		"Windows: SSH with a key, a task without password":     {"keyring", desktop, desktop, says(noSession), "unavailable", "unavailable"},
		"Linux: no session bus, as for cron":                   {"keyring", desktop, desktop, says(unsure), "unavailable", "unavailable"},
		"Linux: another session bus, with its own keyring":     {"keyring", desktop, desktop, says(noSession), "unavailable", "unavailable"},
		"Linux: the bus of another user, as with su":           {"keyring", desktop, desktop, says(unsure), "unavailable", "unavailable"},
		"Linux: a sandbox without the keyring":                 {"keyring", desktop, desktop, says(unsure), "unavailable", "unavailable"},
		"Linux: no default collection":                         {"keyring", desktop, desktop, says(unsure), "unavailable", "unavailable"},
		"Linux: another collection or wallet is locked":        {"keyring", desktop, desktop, says(locked), "locked", "locked"},
		"Linux: KeePassXC, where databases can be closed":      {"keyring", desktop, desktop, says(noSession), "unavailable", "unavailable"},
		"another machine that shares the folder":               {"keyring", desktop, another, stores, "unavailable", "unavailable"},
		"another user":                                         {"keyring", desktop, otherUser, stores, "unavailable", "unavailable"},
		"the same, and the machine has a name":                 {"keyring", pool1, pool1, stores, "key-missing", "key-missing"},
		"a copy of the machine, or it was renamed":             {"keyring", pool1, pool2, stores, "unavailable", "unavailable"},
		"a file of before names counted":                       {"keyring", desktop, pool1, stores, "unavailable", "unavailable"},
		"a file since names count, and no name is known":       {"keyring", pool1, desktop, stores, "unavailable", "unavailable"},
		"a container without a machine id":                     {"keyring", desktop, container, stores, "unavailable", "unavailable"},
		"a key that was made in such a container":              {"keyring", container, desktop, stores, "unavailable", "unavailable"},
		"made and missing in such a container":                 {"keyring", container, container, stores, "unavailable", "unavailable"},

		"kernel: after a restart of that machine":            {"kernel", desktop, restarted, stores, "key-missing", "key-missing"},
		"kernel: after a restart, and no new key is kept":    {"kernel", desktop, restarted, keepsNothing, "key-missing", "key-missing"},
		"kernel: the same boot and namespace":                {"kernel", desktop, desktop, stores, "key-missing", "key-missing"},
		"kernel: the same, and no new key is kept":           {"kernel", desktop, desktop, keepsNothing, "key-missing", "unavailable"},
		"kernel: another user namespace":                     {"kernel", desktop, namespace, stores, "unavailable", "unavailable"},
		"kernel: another machine":                            {"kernel", desktop, another, stores, "unavailable", "unavailable"},
		"kernel: another machine's id on the same kernel":    {"kernel", desktop, sameKernel, stores, "unavailable", "unavailable"},
		"kernel: another user":                               {"kernel", desktop, otherUser, stores, "unavailable", "unavailable"},
		"kernel: after a restart of a machine with a name":   {"kernel", pool1, named(restarted, "pool-1"), stores, "key-missing", "key-missing"},
		"kernel: a copy of the machine, or a new container":  {"kernel", pool1, named(restarted, "pool-2"), stores, "unavailable", "unavailable"},
		"kernel: a container in the same namespace":          {"kernel", container, container, stores, "key-missing", "key-missing"},
		"kernel: a container that may be on another one":     {"kernel", container, restartedContainer, stores, "unavailable", "unavailable"},
		"kernel: no boot is known":                           {"kernel", noBoot, desktop, stores, "unavailable", "unavailable"},
		"kernel: no boot is known here":                      {"kernel", desktop, noBoot, stores, "unavailable", "unavailable"},
		"a word of another program's: as a keyring":          {"x-vault", desktop, desktop, stores, "key-missing", "key-missing"},
		"a word of another program's, on another machine":    {"x-vault", desktop, another, stores, "unavailable", "unavailable"},
		"kernel: locked":                                     {"kernel", desktop, desktop, says(locked), "locked", "locked"},
		"kernel: after a restart, and nobody knows who asks": {"kernel", desktop, restarted, says(unsure), "unavailable", "unavailable"},
	}
}

// Every way in which a source can say "not there", and whether the key is gone.
func TestWhenAKeyIsGone(t *testing.T) {
	for name, c := range ways() {
		t.Run(name, func(t *testing.T) {
			path, old := tempPath(t), newRing()
			require.NoError(t, on(t, c.from, path, under{old, c.word}).Save(ctx, []byte("one")))
			before := readFile(t, path)

			r := newRing() // has no keys
			c.now(r)
			f := func() *File { return on(t, c.to, path, under{r, c.word}) }
			_, rev, err := f().LoadRevision(ctx)
			requireError(t, c.load, err)
			require.Empty(t, r.ids(), "who only reads keeps nothing")
			requireError(t, c.keep, f().Check(ctx))
			requireError(t, c.keep, f().Save(ctx, []byte("two")))
			_, err = f().SaveIf(ctx, []byte("two"), rev)
			requireError(t, c.keep, err)
			requireError(t, c.keep, f().Rotate(ctx, under{r, c.word}))
			require.LessOrEqual(t, len(r.ids()), 1, "the key for the next file is made once")
			require.Equal(t, before, readFile(t, path))

			aside, err := f().SetAside(ctx, rev)
			if c.keep != "key-missing" {
				requireError(t, c.keep, err)
				require.Equal(t, before, readFile(t, path))
				// The key is there again, or the program is where it was.
				mustLoad(t, on(t, c.from, path, under{old, c.word}), "one")
				return
			}
			require.NoError(t, err)
			require.Equal(t, before, readFile(t, aside))
			mustLoad(t, on(t, c.from, aside, under{old, c.word}), "one")
		})
	}
}

// docs/choice.md has the same table.
func TestTheWaysAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "choice.md"))
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(page), "\n## When a key is gone\n")
	documented := map[string][2]string{}
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) == 5 && !strings.HasPrefix(line, "|---") {
			documented[strings.TrimSpace(cells[1])] = [2]string{strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])}
		}
	}
	delete(documented, "the key source")
	tested := map[string][2]string{}
	for name, c := range ways() {
		tested[name] = [2]string{c.load, c.keep}
	}
	require.Equal(t, tested, documented)
}

// Control: who believes every "not there" gives up sound files.
func TestTheRuleIsNeeded(t *testing.T) {
	asked, believed, certain := 0, 0, 0
	for _, source := range []string{"keyring", kernelSource} {
		for _, stores := range []bool{true, false} {
			for origin := unknown; origin <= different; origin++ {
				for boot := unknown; boot <= different; boot++ {
					for userns := unknown; userns <= different; userns++ {
						asked++
						v := absence{source, stores, origin, boot, userns}.judge()
						require.False(t, v.gone && v.probe)
						require.Equal(t, !v.gone && !v.probe, v.because != "", "a reason for each that is not certain")
						if v.gone || v.probe {
							believed++
							require.True(t, stores)
							require.NotEqual(t, different, origin)
						}
						if v.gone {
							certain++
							require.Equal(t, absence{kernelSource, true, same, different, userns}, absence{source, stores, origin, boot, userns})
						}
					}
				}
			}
		}
	}
	require.Equal(t, 108, asked)
	require.Equal(t, 9+3+2, believed) // any boot for a keyring; a restart, and the same boot and namespace, for the kernel
	require.Equal(t, 3, certain)
}

// The key that shows that the old one is gone is the next file's.
func TestTheKeyThatWasKeptAsProofIsUsed(t *testing.T) {
	r, path := newRing(), tempPath(t)
	require.NoError(t, newFile(t, path, newRing()).Save(ctx, []byte("one")))
	f := newFile(t, path, r)
	requireError(t, "key-missing", f.Check(ctx))
	ids := r.ids()
	require.Len(t, ids, 1)
	_, rev, err := f.LoadRevision(ctx)
	requireError(t, "key-missing", err)
	_, err = f.SetAside(ctx, rev)
	require.NoError(t, err)
	require.NoError(t, f.Save(ctx, []byte("two")))
	require.Equal(t, ids, r.ids())
	require.Equal(t, ids[0], headerOf(t, path).ref)
	require.Empty(t, note(t, f))
	require.NoError(t, f.Delete(ctx))
	require.Empty(t, r.ids())
}

// The key comes back before the file is set aside: the spare one is collected.
func TestASpareKeyIsCollected(t *testing.T) {
	r, path := newRing(), tempPath(t)
	require.NoError(t, newFile(t, path, r).Save(ctx, []byte("one")))
	id := headerOf(t, path).ref
	key := r.keys[id]
	delete(r.keys, id)
	f := newFile(t, path, r)
	requireError(t, "key-missing", f.Check(ctx))
	require.Len(t, r.ids(), 1)
	r.keys[id] = key
	require.NoError(t, f.Save(ctx, []byte("two")))
	require.Equal(t, []string{id}, r.ids())
	require.Empty(t, note(t, f))
}

// A key that a source of another program's keeps is never certainly gone.
func TestAKeyThatOthersKeepIsNeverGone(t *testing.T) {
	path := tempPath(t)
	require.NoError(t, newFile(t, path, fixed{"x-vault", randomKey()}).Save(ctx, []byte("one")))
	for _, help := range []string{"Ask the vault.", ""} {
		f := newFile(t, path, notThere{help: help})
		_, err := f.Load(ctx)
		for _, err := range []error{err, f.Check(ctx), f.Save(ctx, []byte("two"))} {
			requireError(t, "unavailable", err)
			require.Regexp(t, "^"+strings.TrimSpace(help+" Otherwise sign out in the program"), persistence.Remedy(err))
		}
	}
}

type notThere struct {
	fixed
	help string
}

func (notThere) Source() string { return "x-vault" }
func (n notThere) Key(context.Context, string) ([]byte, error) {
	return nil, remedy.With(n.help, persistence.ErrKeyMissing)
}

// What the header says of the machine, the user and the folder is not to be read
// from it, and two keys of one place have nothing in common.
func TestReferencesTellNothing(t *testing.T) {
	dir, r := t.TempDir(), newRing()
	var lines []string
	for i := range 4 {
		path := filepath.Join(dir, fmt.Sprint("cache", i%2))
		f := on(t, desktop, path, under{r, "kernel"})
		require.NoError(t, f.Delete(ctx))
		require.NoError(t, f.Save(ctx, []byte("one")))
		h := headerOf(t, path)
		require.Equal(t, desktop.origin("kernel", refID(h.ref)), h.file)
		require.NotEmpty(t, h.file.origin)
		require.NotEmpty(t, h.file.boot)
		require.NotEmpty(t, h.file.userns)
		lines = append(lines, h.ref, h.file.origin, h.file.boot, h.file.userns, h.ref[:idRandom], h.ref[idRandom:])
		for _, known := range []string{desktop.id, desktop.user + " ", desktop.boot, "user:", dir, "contoso-cli"} {
			require.NotContains(t, h.keyLine(), known)
		}
	}
	slices.Sort(lines)
	require.Len(t, slices.Compact(lines), 4*6)

	// A keyring's keys outlive the boot.
	path := tempPath(t)
	require.NoError(t, on(t, desktop, path, r).Save(ctx, nil))
	require.Equal(t, fileParams{origin: headerOf(t, path).file.origin}, headerOf(t, path).file)
	// A key that is not stored says nothing of where.
	require.NoError(t, on(t, desktop, path, r).Rotate(ctx, cheap("x")))
	require.Empty(t, headerOf(t, path).file.origin)
}

// forge writes a header to path that names those keys, with a sum that is right,
// and a body of zeros: what somebody can do who can write the folder and has no
// key.
func forge(t testing.TB, path string, h *header) {
	t.Helper()
	h.salt, h.commit = [32]byte(randomKey()), [32]byte(randomKey())
	require.NoError(t, os.WriteFile(path, append(h.format(), make([]byte, 40)...), 0o600))
}

// No key is deleted on the word of a header, or of the lock file, that anybody may
// have written. Two caches of one name, in two folders, have their keys in one
// keyring.
func TestOnlyItsOwnKeysGo(t *testing.T) {
	r := newRing()
	victim := tempPath(t)
	require.NoError(t, newFile(t, victim, r).Save(ctx, []byte("victim's")))
	require.NoError(t, newFile(t, victim, r).Rotate(ctx, r))
	theirs := headerOf(t, victim)
	mustLoad(t, newFile(t, victim, r), "victim's")
	keys := r.ids()
	require.Len(t, keys, 2)

	forgeries := map[string]*header{
		"as the key":          {source: "keyring", ref: theirs.ref},
		"as the previous one": {source: "keyring", ref: newID(), file: fileParams{previous: theirs.keyName()}},
		"with another source": {source: "passphrase", ref: newID(), file: fileParams{previous: theirs.keyName()}},
		"both":                {source: "keyring", ref: theirs.ref, file: fileParams{previous: theirs.file.previous}},
	}
	for name, forged := range forgeries {
		t.Run(name, func(t *testing.T) {
			attempts := map[string]func(t *testing.T, f *File, path string){
				"Delete": func(t *testing.T, f *File, path string) { require.NoError(t, f.Delete(ctx)) },
				"DeleteIf": func(t *testing.T, f *File, path string) {
					rev, err := f.Revision(ctx)
					require.NoError(t, err)
					require.NoError(t, f.DeleteIf(ctx, rev))
				},
				"Rotate": func(t *testing.T, f *File, path string) {
					require.Error(t, f.Rotate(ctx, r))
					require.NoError(t, f.Delete(ctx))
				},
				"SetAside": func(t *testing.T, f *File, path string) {
					for range 8 {
						forge(t, path, forged)
						b := readFile(t, path)
						require.NoError(t, os.WriteFile(path, b[:len(b)-30], 0o600)) // cut short
						_, rev, err := f.LoadRevision(ctx)
						requireError(t, "corrupt", err)
						_, err = f.SetAside(ctx, rev)
						require.NoError(t, err)
						require.NoError(t, f.Save(ctx, []byte("data")))
						require.NoError(t, f.Delete(ctx))
					}
				},
			}
			for name, attempt := range attempts {
				t.Run(name, func(t *testing.T) {
					path := tempPath(t)
					f := newFile(t, path, r)
					forge(t, path, forged)
					attempt(t, f, path)
					require.Subset(t, r.ids(), keys)
					mustLoad(t, newFile(t, victim, r), "victim's")
				})
			}
		})
	}

	// A ledger that names them.
	path := tempPath(t)
	f := newFile(t, path, r)
	require.NoError(t, f.Save(ctx, []byte("one")))
	require.NoError(t, f.hold(ctx, func() error { return f.record(theirs.keyName()) }))
	require.NoError(t, f.Rotate(ctx, r))
	require.NoError(t, f.Delete(ctx))
	require.ElementsMatch(t, keys, r.ids())
	// Nor does a new file use one of them.
	require.NoError(t, f.hold(ctx, func() error { return f.record(theirs.keyName()) }))
	require.NoError(t, f.Save(ctx, []byte("two")))
	require.NotEqual(t, theirs.ref, headerOf(t, path).ref)

	// Control: a key of its own that is named so does go.
	own := f.newOwnedID()
	_, _, err := r.NewKey(ctx, own)
	require.NoError(t, err)
	require.NoError(t, f.hold(ctx, func() error { return f.record("keyring/" + own) }))
	require.Contains(t, r.ids(), own)
	require.NoError(t, f.Delete(ctx))
	require.NotContains(t, r.ids(), own)
	require.ElementsMatch(t, keys, r.ids())
}

// A copy of a cache in another folder opens, and its removal takes nothing from the
// original. What stays is said.
func TestACopyTakesNothingFromTheOriginal(t *testing.T) {
	r, original, copied := newRing(), tempPath(t), tempPath(t)
	require.NoError(t, newFile(t, original, r).Save(ctx, []byte("one")))
	require.NoError(t, os.WriteFile(copied, readFile(t, original), 0o600))
	f := newFile(t, copied, r)
	mustLoad(t, f, "one")
	left, err := f.LeftKeys(ctx)
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, f.Delete(ctx))
	mustLoad(t, newFile(t, original, r), "one")
	left, err = f.LeftKeys(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{headerOf(t, original).keyName()}, left)

	// Another name or another user owns nothing either.
	other, err := New(original, r, &Options{Name: "fabrikam-cli"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(copied, readFile(t, original), 0o600))
	for _, f := range []*File{other, on(t, desktop, original, r)} {
		require.False(t, f.owns(headerOf(t, original).ref))
	}
	require.True(t, newFile(t, original, r).owns(headerOf(t, original).ref), "control")
	require.True(t, newFile(t, original+".damaged-20260101T000000Z", r).owns(headerOf(t, original).ref), "control: set aside")
}

// A key that two files of one cache have, the file in use and one that was set
// aside, goes with the last of them, in either order, and no new file uses it.
func TestAKeyGoesWithTheLastFile(t *testing.T) {
	for name, asideFirst := range map[string]bool{"aside first": true, "aside last": false} {
		t.Run(name, func(t *testing.T) {
			r, path := newRing(), tempPath(t)
			aside := path + ".damaged-20260101T000000Z"
			require.NoError(t, newFile(t, path, r).Save(ctx, []byte("one")))
			require.NoError(t, os.WriteFile(aside, readFile(t, path), 0o600))
			first, last := path, aside
			if asideFirst {
				first, last = aside, path
			}
			f := newFile(t, first, r)
			require.NoError(t, f.Delete(ctx))
			mustLoad(t, newFile(t, last, r), "one")
			left, err := f.LeftKeys(ctx)
			require.NoError(t, err)
			require.Empty(t, left, "a file needs it")
			require.NoError(t, f.hold(ctx, func() error { return f.record(headerOf(t, last).keyName()) })) // as a kill leaves it
			require.NoError(t, newFile(t, first, r).Save(ctx, []byte("two")))
			require.NotEqual(t, headerOf(t, last).ref, headerOf(t, first).ref)
			require.NoError(t, newFile(t, last, r).Delete(ctx))
			require.Equal(t, []string{refID(headerOf(t, first).ref)}, r.ids())
			require.NoError(t, newFile(t, first, r).Delete(ctx))
			require.Empty(t, r.ids())
		})
	}
}

// After a change to a passphrase the key in the keyring goes at the next rotation
// or with the file, whatever source is in use then; what cannot be deleted is said.
func TestAKeyOfAnEarlierSourceIsCollected(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, f *File){
		"rotate": func(t *testing.T, f *File) { require.NoError(t, f.Rotate(ctx, cheap("two"))) },
		"delete": func(t *testing.T, f *File) { require.NoError(t, f.Delete(ctx)) },
	} {
		t.Run(name, func(t *testing.T) {
			r, path := newRing(), tempPath(t)
			require.NoError(t, newFile(t, path, r).Save(ctx, []byte("one")))
			require.NoError(t, newFile(t, path, r).Rotate(ctx, cheap("one")))
			require.Len(t, r.ids(), 1, "a copy made before still opens")
			open := func(old ...KeyDeleter) *File {
				f, err := New(path, cheap("one"), &Options{Name: "contoso-cli", OldSources: old})
				require.NoError(t, err)
				return f
			}
			require.NoError(t, open(r).Save(ctx, []byte("two")))
			require.Len(t, r.ids(), 1, "the header names it still")

			// Control: a program that does not name the keyring cannot, and says so.
			backup := readFile(t, path)
			f := open()
			end(t, f)
			require.Len(t, r.ids(), 1)
			left, err := f.LeftKeys(ctx)
			require.NoError(t, err)
			require.Equal(t, []string{"keyring/" + r.ids()[0]}, left)
			require.NoError(t, os.WriteFile(path, backup, 0o600))

			// A locked keyring: later.
			r.before = func(call string) error { return persistence.ErrKeyringLocked }
			f = open(r)
			end(t, f)
			left, err = f.LeftKeys(ctx)
			require.NoError(t, err)
			require.Len(t, left, 1)
			require.NoError(t, os.WriteFile(path, backup, 0o600))
			r.before = nil

			f = open(r)
			end(t, f)
			require.Empty(t, r.ids())
			left, err = f.LeftKeys(ctx)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
	_, err := New(tempPath(t), cheap("x"), &Options{OldSources: []KeyDeleter{nil}})
	require.Error(t, err)
}

// What FORMAT.md says of the origin, done by hand: the name is a part of its own, and
// is left out where there is none. The owner does not depend on it, so that a machine
// that was renamed still deletes its keys.
func TestOriginIsThatOfTheFormat(t *testing.T) {
	const id = "adcf592e71ae3c8f79d68acf8976217a"
	byHand := func(parts ...string) string {
		mac := hmac.New(sha256.New, []byte(desktop.id))
		mac.Write([]byte("tokenkeep-encrypted/1\x00origin\x00" + strings.Join(parts, "\x00")))
		return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
	}
	renamed := desktop
	renamed.host = "pool-1"
	require.Equal(t, byHand(id, desktop.user), desktop.origin("keyring", id).origin)
	require.Equal(t, byHand(id, desktop.user, "pool-1"), renamed.origin("keyring", id).origin)
	path, r := tempPath(t), newRing()
	require.NoError(t, on(t, desktop, path, r).Save(ctx, nil))
	require.NoError(t, on(t, renamed, path, r).Delete(ctx))
	require.Empty(t, r.ids())
}

// The machine's own id, the user and the boot are read.
func TestThisMachine(t *testing.T) {
	m := thisMachine()
	require.NotEmpty(t, m.user)
	require.Equal(t, m, thisMachine())
	require.False(t, strings.ContainsAny(m.id+m.host+m.boot+m.userns, "\n\x00"))
	if runtime.GOOS == "windows" && m.id != "" {
		require.NotEmpty(t, m.host, "copies of one image have one MachineGuid")
	}
	if runtime.GOOS != "linux" {
		return // only Linux has another way to read it
	}
	if b, err := os.ReadFile("/etc/machine-id"); err == nil && len(bytes.TrimSpace(b)) == 32 {
		require.Equal(t, string(bytes.TrimSpace(b)), m.id)
	}
}
