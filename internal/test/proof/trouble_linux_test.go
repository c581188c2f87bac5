package proof

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
)

// troubles are what happens to the disk.
var troubles = map[string]func(v *volume) (over func()){
	"full":      (*volume).fill,
	"no inodes": (*volume).fillInodes,
	"read-only": (*volume).readOnly,
}

// A process refreshes, and cannot store the new refresh token because of
// trouble with the disk that came up while the authority answered. When that is
// over another process saves, with the token that is spent. Still the new one
// is not lost: the first process goes on with it, stores it at its next save,
// and the authority never sees the spent one. A sign-out that cannot be stored
// is reported, and is there to be made again.
func TestDiskTrouble(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	for name, trouble := range troubles {
		for _, kind := range []string{encryptedFile, plaintextFile, opened} {
			t.Run(name+", "+kind, func(t *testing.T) {
				s, p, first, second, over := refreshInTrouble(t, trouble, kind, tokenkeepGlue)
				require.Empty(t, first.answer().Err, "who asked for a token gets it")
				over()
				second.must(command{Do: "sign in", User: 2})
				first.must(command{Do: "silent", User: 0, Scope: "Files.Read"})
				require.Zero(t, s.Reuses())
				requireStored(t, s, p, true, true, true)

				over = trouble(&volume{t: t, dir: filepath.Dir(p.dir), options: tmpfsOptions})
				require.NotEmpty(t, first.do(command{Do: "sign out", User: 1}).Err)
				over()
				requireStored(t, s, p, true, true, true)
				require.Equal(t, []int{0, 1, 2}, second.must(command{Do: "accounts"}).Accounts)
				first.must(command{Do: "sign out", User: 1})
				requireStored(t, s, p, true, false, true)
				require.Equal(t, []int{0, 2}, second.must(command{Do: "accounts"}).Accounts)
				require.Empty(t, temporary(dirFiles(t, p.dir)))
			})
		}
		for _, glue := range []string{naiveGlue, silentGlue} {
			t.Run(name+", control, "+glue, func(t *testing.T) {
				s, _, first, second, over := refreshInTrouble(t, trouble, plaintextFile, glue)
				refreshed := first.answer().Err == ""
				over()
				second.must(command{Do: "sign in", User: 2})
				again := first.do(command{Do: "silent", User: 0, Scope: "Files.Read"}).Err == ""
				require.False(t, refreshed && again && s.Reuses() == 0, "the control was not caught: this test proves nothing")
			})
		}
	}
}

const tmpfsOptions = "size=256k,nr_inodes=64"

// refreshInTrouble starts two processes, with users 0 and 1, and lets the
// authority answer the first one's refresh for user 0 when trouble has come.
func refreshInTrouble(t *testing.T, trouble func(*volume) func(), kind, glue string) (s *entratest.Server, p place, first, second session, over func()) {
	s = newAuthority(t, 3, entratest.Options{})
	s.SetLifetime(time.Minute, 0)
	v := newTmpfs(t, tmpfsOptions)
	p = newPlace(t, kind)
	p.dir = filepath.Join(v.dir, "tokens")
	first, second = startSession(t, p, glue, s), startSession(t, p, glue, s)
	first.must(command{Do: "sign in", User: 0})
	second.must(command{Do: "sign in", User: 1})
	h := s.Hold(entratest.GrantRefreshToken)
	first.tell(command{Do: "silent", User: 0, Scope: "Mail.Read"})
	<-h.Arrived()
	over = trouble(v)
	h.Release()
	return s, p, first, second, over
}

// requireStored requires that just these users are stored, and that the
// authority takes their refresh tokens.
func requireStored(t *testing.T, s *entratest.Server, p place, users ...bool) {
	t.Helper()
	end := entriesOf(t, p, len(users))
	for n, there := range users {
		require.Equal(t, there, end[n].account, "user %d", n)
	}
	requireAccepted(t, s, p, end)
}
