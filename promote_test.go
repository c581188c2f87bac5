package tokenkeep_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/ledger"
	"github.com/tokenkeep/tokenkeep/internal/shell"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// stubborn is a keyring from which nothing can be deleted.
type stubborn struct{ *keyringtest.Keyring }

func (stubborn) Delete(context.Context, string, string) error {
	return errors.New("no permission to delete")
}

func (m *machine) plaintextPath() string { return filepath.Join(m.dir, "app.plaintext.json") }

// A plaintext file of another format is removed if the encrypted one has the same
// content, as a promotion that was cut short leaves it, and stays otherwise.
func TestPlaintextOfAnotherFormat(t *testing.T) {
	m := newMachine(t)
	c, err := tokenkeep.Open(ctx, m.permitting())
	require.NoError(t, err)
	save(t, c, "xyz")
	for content, stays := range map[string]bool{"xyz": false, "xyzz": true} {
		m.plant(content)
		c, err = tokenkeep.Open(ctx, m.permitting())
		require.NoError(t, err)
		require.Equal(t, "xyz", load(t, c))
		require.Len(t, m.takeWarnings(), 1)
		require.Equal(t, stays, slices.Contains(m.files(), "app.plaintext.json"))
		require.NoError(t, os.RemoveAll(m.plaintextPath()))
	}
}

// However many keys wait for their removal, a plaintext file that was copied
// once is not copied again: that would bring back an account that was signed out
// since.
func TestKeysLeaveRoomForThePromotion(t *testing.T) {
	m := newMachine(t)
	ssh, err := tokenkeep.Open(ctx, m.withoutKeyring())
	require.NoError(t, err)
	save(t, ssh, fromSSH)
	cfg := m.config()
	cfg.AllowPlaintext = true
	c, err := tokenkeep.Open(ctx, cfg) // promotes it
	require.NoError(t, err)
	require.Equal(t, fromSSH, load(t, c))
	save(t, c, "{}")

	keys := keyring.NewKeys(stubborn{m.keyring}, "tokenkeep/app")
	lock := persistence.NewFileLock(filepath.Join(m.dir, "app.lock"))
	file, err := encrypted.New(filepath.Join(m.dir, "app.enc"), keys, &encrypted.Options{Name: "app", Lock: lock})
	require.NoError(t, err)
	for range 10 {
		require.NoError(t, file.Rotate(ctx, keys))
	}
	require.Greater(t, len(m.keyring.Items()), 10, "else nothing waits")

	// As if the process had been killed before it removed the file.
	require.NoError(t, os.WriteFile(m.plaintextPath(), []byte(fromSSH), 0o600))
	c, err = tokenkeep.Open(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, "{}", load(t, c))
	require.Equal(t, []string{"app.enc"}, m.files())
}

// signedIn returns a token cache in which those are signed in, each as
// "user=secret of the refresh token".
func signedIn(users ...string) string {
	var accounts, refresh []string
	for _, u := range users {
		user, secret, _ := strings.Cut(u, "=")
		accounts = append(accounts, fmt.Sprintf(`"%s-login":{"home_account_id":"%s","environment":"login","username":"%s"}`, user, user, user))
		refresh = append(refresh, fmt.Sprintf(`"%s-login-refreshtoken":{"home_account_id":"%s","environment":"login","secret":"%s"}`, user, user, secret))
	}
	return `{"Account":{` + strings.Join(accounts, ",") + `},"RefreshToken":{` + strings.Join(refresh, ",") + `}}`
}

// secrets returns the secrets of the refresh tokens in a token cache, by user.
func secrets(t *testing.T, data string) map[string]string {
	t.Helper()
	var parsed struct {
		RefreshToken map[string]struct {
			HomeAccountID string `json:"home_account_id"`
			Secret        string `json:"secret"`
		}
	}
	if data != "" {
		require.NoError(t, json.Unmarshal([]byte(data), &parsed))
	}
	all := map[string]string{}
	for key, e := range parsed.RefreshToken {
		who := e.HomeAccountID
		if who == "" {
			who = key
		}
		all[who] = e.Secret
	}
	return all
}

func (m *machine) plant(data string) {
	require.NoError(m.t, os.MkdirAll(m.dir, 0o700))
	require.NoError(m.t, os.WriteFile(m.plaintextPath(), []byte(data), 0o600))
}

// takeWarnings returns what was warned of since the last call.
func (m *machine) takeWarnings() []fallback.Warning {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.warnings
	m.warnings = nil
	return taken
}

// What lies in plaintext beside the encrypted file is neither read nor moved
// where the program does not permit plaintext, whatever else it permits.
func TestPlaintextThatIsNotPermitted(t *testing.T) {
	for name, change := range map[string]func(*tokenkeep.Config){
		"AllowPlaintext is off":         func(cfg *tokenkeep.Config) { cfg.AllowPlaintext = false },
		"and the order names it":        func(cfg *tokenkeep.Config) { cfg.AllowPlaintext, cfg.Order = false, []string{"keyring", "plaintext"} },
		"the order leaves it out":       func(cfg *tokenkeep.Config) { cfg.Order = []string{"keyring"} },
		"the user asks for the keyring": func(cfg *tokenkeep.Config) { cfg.Store = "keyring" },
	} {
		for _, stored := range []bool{true, false} {
			t.Run(name+map[bool]string{false: ", and nothing is stored"}[stored], func(t *testing.T) {
				m := newMachine(t)
				if stored {
					c, err := tokenkeep.Open(ctx, m.config())
					require.NoError(t, err)
					save(t, c, signedIn("ann=hers"))
				}
				bait := signedIn("ann="+planted, "ben=gone")
				m.plant(bait)
				cfg := m.permitting()
				change(&cfg)
				c, err := tokenkeep.Open(ctx, cfg)
				require.NoError(t, err)
				want := map[string]string{}
				if stored {
					want["ann"] = "hers"
				}
				require.Equal(t, want, secrets(t, load(t, c)))
				warnings := m.takeWarnings()
				require.Len(t, warnings, 1)
				require.Contains(t, warnings[0].String(), "neither used nor moved")
				require.Contains(t, warnings[0].Remedy, "tokenkeep move app -dir "+shell.Quote(m.dir)+" -to keyring")
				require.NotContains(t, warnings[0].String(), planted)
				save(t, c, signedIn("ann=new"))
				require.NoError(t, c.Update(ctx, func([]byte) ([]byte, error) { return []byte(signedIn("ann=newer")), nil }))
				left, err := os.ReadFile(m.plaintextPath())
				require.NoError(t, err)
				require.Equal(t, bait, string(left))

				// A person asks for it: then it counts, but by the same rules.
				require.NoError(t, c.Delete(ctx))
				require.FileExists(t, m.plaintextPath(), "what is not permitted is not removed either")
				require.NoError(t, tokenkeep.MovePlaintext(ctx, cfg))
				c, err = tokenkeep.Open(ctx, cfg)
				require.NoError(t, err)
				require.Equal(t, map[string]string{"ann": planted, "ben": "gone"}, secrets(t, load(t, c)))
				require.Equal(t, []string{"app.enc"}, m.files())
			})
		}
	}
}

// Beside an encrypted file plaintext only adds: it replaces no entry, and brings
// back no account.
func TestPlaintextBesideEncryptedOnlyAdds(t *testing.T) {
	m := newMachine(t)
	c, err := tokenkeep.Open(ctx, m.permitting())
	require.NoError(t, err)
	save(t, c, signedIn("ann=hers", "ben=his"))
	save(t, c, signedIn("ann=hers")) // ben signs out
	m.plant(`{"Account":{"ann-login":{"home_account_id":"ann","environment":"login","username":"` + planted + `"},
		"ben-login":{"home_account_id":"ben","environment":"login"},"ANN-other":{"home_account_id":"ANN","environment":"login","realm":"other"}},
		"RefreshToken":{"ANN-login-refreshtoken":{"home_account_id":"ann","environment":"login","secret":"` + planted + `","last_modification_time":"9999999999"},
		"ben-login-refreshtoken":{"home_account_id":"ben","environment":"login","secret":"his"}},
		"AccessToken":{"ann-at":{"home_account_id":"Ann","environment":"Login","secret":"added"}},
		"AppMetadata":{"app":{"client_id":"app"}},"Mine":{"x":{"secret":"` + planted + `"}}}`)
	c, err = tokenkeep.Open(ctx, m.permitting())
	require.NoError(t, err)
	data := load(t, c)
	require.Equal(t, map[string]string{"ann": "hers"}, secrets(t, data))
	require.NotContains(t, data, planted)
	require.NotContains(t, data, "ben")
	for _, part := range []string{`"ann-at"`, `"ANN-other"`, `"app"`} {
		require.Contains(t, data, part)
	}
	warnings := m.takeWarnings()
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0].Message, "(entries added to the encrypted file: 3, not added: 3)")
	require.Contains(t, warnings[0].Remedy, "tokenkeep import app")
	require.FileExists(t, m.plaintextPath(), "what was not moved is not lost")

	// Nothing more happens the next time, nor in a process that goes on.
	again, err := tokenkeep.Open(ctx, m.permitting())
	require.NoError(t, err)
	require.Equal(t, data, load(t, again))
	require.Contains(t, m.takeWarnings()[0].Message, "(entries added to the encrypted file: 0, not added: 3)")

	// A person who asks gets an error that says what stays.
	err = tokenkeep.MovePlaintext(ctx, m.permitting())
	require.ErrorContains(t, err, "not added: 3")
	require.ErrorContains(t, err, "tokenkeep import app")
	require.Equal(t, data, load(t, again))

	// With the cache goes what is permitted to be moved into it.
	require.NoError(t, again.Delete(ctx))
	require.Empty(t, m.files())
	again, err = tokenkeep.Open(ctx, m.permitting())
	require.NoError(t, err)
	require.Empty(t, load(t, again))
}

// An old copy of the plaintext file, put back after all was moved, brings back
// nothing: neither the copy that was moved last nor an older one.
func TestRestoredBackupOfPlaintext(t *testing.T) {
	m := newMachine(t)
	ssh, err := tokenkeep.Open(ctx, m.withoutKeyring())
	require.NoError(t, err)
	older, newest := signedIn("ann=old", "ben=old"), signedIn("ann=new", "ben=new", "cy=new")
	save(t, ssh, older)
	save(t, ssh, newest)
	c, err := tokenkeep.Open(ctx, m.permitting())
	require.NoError(t, err)
	require.Len(t, secrets(t, load(t, c)), 3)
	require.Contains(t, m.takeWarnings()[1].Message, "(accounts: 3)")
	save(t, c, signedIn("ann=newest"))
	for _, backup := range []string{newest, older} {
		m.plant(backup)
		c, err = tokenkeep.Open(ctx, m.permitting())
		require.NoError(t, err)
		require.Equal(t, map[string]string{"ann": "newest"}, secrets(t, load(t, c)))
		require.Len(t, m.takeWarnings(), 1)
		require.Equal(t, backup == older, slices.Contains(m.files(), "app.plaintext.json"))
	}
}

// A process is killed at each step of a promotion. Whatever the user does then,
// nothing is lost that was stored, and nobody comes back who signed out.
func TestPromotionCutShort(t *testing.T) {
	for name, kill := range map[string]func(t *testing.T, m *machine){
		"before the copy": func(*testing.T, *machine) {},
		"after the copy": func(t *testing.T, m *machine) {
			saveEncrypted(t, m)
		},
		"after the record": func(t *testing.T, m *machine) {
			saveEncrypted(t, m)
			lock := persistence.NewFileLock(filepath.Join(m.dir, "app.lock"))
			sum := sha256.Sum256([]byte(signedIn("ann=1", "ben=1")))
			require.NoError(t, lock.Hold(ctx, func() error { return ledger.In(lock.Path()).SetPromoted(hex.EncodeToString(sum[:])) }))
		},
		"after the removal": func(t *testing.T, m *machine) {
			saveEncrypted(t, m)
			require.NoError(t, os.Remove(m.plaintextPath()))
		},
	} {
		for _, signsOut := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", and ben signs out"}[signsOut], func(t *testing.T) {
				m := newMachine(t)
				m.plant(signedIn("ann=1", "ben=1"))
				kill(t, m)
				want := map[string]string{"ann": "1", "ben": "1"}
				if signsOut && name != "before the copy" {
					// By a program that does not permit plaintext, and so leaves it alone.
					c, err := tokenkeep.Open(ctx, m.config())
					require.NoError(t, err)
					save(t, c, signedIn("ann=2"))
					want = map[string]string{"ann": "2"}
				}
				for range 2 {
					c, err := tokenkeep.Open(ctx, m.permitting())
					require.NoError(t, err)
					require.Equal(t, want, secrets(t, load(t, c)))
				}
			})
		}
	}
}

func saveEncrypted(t *testing.T, m *machine) {
	file, err := encrypted.New(filepath.Join(m.dir, "app.enc"), keyring.NewKeys(m.keyring, "tokenkeep/app"), &encrypted.Options{Name: "app"})
	require.NoError(t, err)
	require.NoError(t, file.Save(ctx, []byte(signedIn("ann=1", "ben=1"))))
}

// Two programs open one encrypted file, one of them by a symbolic link: they
// share its lock, which lies beside the file.
func TestLinkAndTargetShareALock(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links are refused on Windows")
	}
	for _, linked := range []string{"app.enc", "app.plaintext.json"} {
		t.Run(linked, func(t *testing.T) {
			m := newMachine(t)
			open := func(dir string) *persistence.Cache {
				cfg := m.permitting()
				cfg.Dir = dir
				if linked == "app.plaintext.json" {
					cfg.Keyring = keyringtest.NewAbsent()
				}
				c, err := tokenkeep.Open(ctx, cfg)
				require.NoError(t, err)
				return c
			}
			there := m.dir + ".there"
			require.NoError(t, os.MkdirAll(m.dir, 0o700))
			require.NoError(t, os.MkdirAll(there, 0o700))
			require.NoError(t, os.Symlink(filepath.Join(there, linked), filepath.Join(m.dir, linked)))
			byLink, byTarget := open(m.dir), open(there)
			require.Equal(t, filepath.Join(there, linked), byLink.Describe().Location)

			const briefly = 20 * time.Millisecond
			excludes := func(a, b *persistence.Cache, patience time.Duration) (excluded bool) {
				require.NoError(t, a.Update(ctx, func([]byte) ([]byte, error) {
					short, cancel := context.WithTimeout(ctx, patience)
					defer cancel()
					err := b.Update(short, func([]byte) ([]byte, error) { return nil, nil })
					excluded = errors.Is(err, persistence.ErrLockTimeout)
					return nil, nil
				}))
				return excluded
			}
			require.True(t, excludes(byLink, byTarget, briefly))
			require.True(t, excludes(byTarget, byLink, briefly))

			// The control: with a lock beside the link they do not exclude each other.
			lock := persistence.NewFileLock(filepath.Join(m.dir, "app.lock"))
			var besideLink persistence.Persistence
			var err error
			if linked == "app.enc" {
				besideLink, err = encrypted.New(filepath.Join(m.dir, linked), keyring.NewKeys(m.keyring, "tokenkeep/app"), &encrypted.Options{Name: "app", Lock: lock})
			} else {
				besideLink, err = fallback.NewInsecurePlaintextFile(filepath.Join(m.dir, linked), func(fallback.Warning) {}, &fallback.Options{Lock: lock})
			}
			require.NoError(t, err)
			wrong, err := persistence.New(besideLink)
			require.NoError(t, err)
			require.False(t, excludes(wrong, byTarget, 4*time.Minute), "then this test proves nothing")

			// Whoever opens the file itself, without a lock of his own, has the right one.
			var alone persistence.Persistence
			if linked == "app.enc" {
				alone, err = encrypted.New(filepath.Join(m.dir, linked), keyring.NewKeys(m.keyring, "tokenkeep/app"), &encrypted.Options{Name: "app"})
			} else {
				alone, err = fallback.NewInsecurePlaintextFile(filepath.Join(m.dir, linked), func(fallback.Warning) {}, nil)
			}
			require.NoError(t, err)
			right, err := persistence.New(alone)
			require.NoError(t, err)
			require.True(t, excludes(right, byTarget, briefly))
			require.True(t, excludes(byTarget, right, briefly))

			var all sync.WaitGroup
			for _, c := range []*persistence.Cache{byLink, byTarget} {
				all.Go(func() {
					for range 50 {
						if err := c.Update(ctx, func(current []byte) ([]byte, error) { return append(current, 'x'), nil }); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			require.Equal(t, strings.Repeat("x", 100), load(t, open(there)))
		})
	}
}

// A plaintext file that is a link out of the folder of the encrypted one has
// another lock: it is not used with that one.
func TestPlaintextLinkedElsewhere(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links are refused on Windows")
	}
	m := newMachine(t)
	c, err := tokenkeep.Open(ctx, m.permitting())
	require.NoError(t, err)
	save(t, c, signedIn("ann=1"))
	there := m.dir + ".there"
	require.NoError(t, os.MkdirAll(there, 0o700))
	target := filepath.Join(there, "app.plaintext.json")
	require.NoError(t, os.WriteFile(target, []byte(signedIn("ann=2")), 0o600))
	require.NoError(t, os.Symlink(target, m.plaintextPath()))
	c, err = tokenkeep.Open(ctx, m.permitting())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"ann": "1"}, secrets(t, load(t, c)))
	warnings := m.takeWarnings()
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0].Reason, "link")
	require.FileExists(t, target)
}

// What MSAL cannot read is not promoted: one such entry would make it refuse all that
// is stored.
func TestPromotionLeavesOutWhatMSALRefuses(t *testing.T) {
	bad := `"AccessToken":{"bad":{"home_account_id":"ann","environment":"login","secret":"` + planted + `","cached_at":"1.5"}},`
	for _, stored := range []bool{false, true} {
		m := newMachine(t)
		if stored {
			c, err := tokenkeep.Open(ctx, m.config())
			require.NoError(t, err)
			save(t, c, signedIn("ann=hers"))
		}
		m.plant("{" + bad + signedIn("ann=hers")[1:])
		c, err := tokenkeep.Open(ctx, m.permitting())
		require.NoError(t, err)
		require.Equal(t, map[string]string{"ann": "hers"}, secrets(t, load(t, c)))
		require.NotContains(t, load(t, c), planted)
		require.NotContains(t, m.files(), "app.plaintext.json")
		warnings := m.takeWarnings()
		require.Len(t, warnings, 2)
		require.Contains(t, warnings[0].Message, `"AccessToken" "bad"`)
		for _, w := range warnings {
			require.NotContains(t, w.String(), planted)
		}
	}
}
