package keyring

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gokeyring "github.com/zalando/go-keyring"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// played plays go-keyring back: what it shows is our own mapping, and no
// evidence about Windows.
type played func() (string, error)

func (p played) Get(string, string) (string, error) { return p() }
func (p played) Set(string, string, string) error   { _, err := p(); return err }
func (p played) Delete(string, string) error        { _, err := p(); return err }

var errOfTheSystem = errors.New("an error of the system")

func playedSystem(s settings, p played) *system {
	return &system{&credentialManager{settings: s, calls: p, classify: func(err error) error {
		if errors.Is(err, errOfTheSystem) {
			return newTrouble(Denied, "no logon session", "Log on.")
		}
		return nil
	}, session: func() error { return nil }}}
}

func TestCredentialManagerErrors(t *testing.T) {
	const secret = "planted-secret"
	unknown := errors.New("unknown")
	for _, c := range []struct {
		err, class error
	}{
		{nil, nil},
		{gokeyring.ErrNotFound, persistence.ErrNotFound},
		{gokeyring.ErrSetDataTooBig, persistence.ErrTooLarge},
		{errOfTheSystem, persistence.ErrUnavailable},
		{unknown, unknown},
	} {
		k := playedSystem(settings{timeout: time.Minute}, func() (string, error) { return secret, c.err })
		_, err := k.Get(t.Context(), "app", "alice")
		for _, err := range []error{err, k.Set(t.Context(), "app", "alice", secret), k.Delete(t.Context(), "app", "alice")} {
			if c.class == nil {
				require.NoError(t, err)
				continue
			}
			require.ErrorIs(t, err, c.class)
			require.NotContains(t, err.Error(), secret)
			var e *persistence.Error
			require.ErrorAs(t, err, &e)
		}
	}
}

// A logon session without the user's profile has a set of credentials too, which is
// empty: "not found" is no proof there. The numbers are those of Microsoft's
// documentation of CredGetSessionTypes.
func TestCredentialManagerSessions(t *testing.T) {
	for name, c := range map[string]struct {
		maximum uint32
		err     error
		whole   bool
	}{
		"an interactive logon":                   {2, nil, true},
		"a domain user's":                        {3, nil, true},
		"for this session only":                  {1, nil, false},
		"none, by a policy or without a profile": {0, nil, false},
		"the question fails":                     {3, errOfTheSystem, false},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			k := playedSystem(settings{timeout: time.Minute}, func() (string, error) { calls++; return "", gokeyring.ErrNotFound })
			k.platform.(*credentialManager).session = func() error { return checkPersistence(c.maximum, c.err) }
			_, err := k.Get(t.Context(), "app", "alice")
			_, keyErr := NewKeys(k, "app").Key(t.Context(), "0123")
			deleteErr := k.Delete(t.Context(), "app", "alice")
			require.Equal(t, 3, calls)
			if c.whole {
				require.ErrorIs(t, err, persistence.ErrNotFound)
				require.ErrorIs(t, keyErr, persistence.ErrKeyMissing)
				require.ErrorIs(t, deleteErr, persistence.ErrNotFound)
				return
			}
			setErr := k.Set(t.Context(), "app", "alice", "secret")
			require.Equal(t, 3, calls, "nothing is stored that other sessions would not have")
			for _, err := range []error{err, keyErr, deleteErr, setErr} {
				require.ErrorIs(t, err, persistence.ErrUnavailable)
				require.NotErrorIs(t, err, persistence.ErrNotFound)
				require.NotErrorIs(t, err, persistence.ErrKeyMissing)
				require.Equal(t, NoSession, SituationOf(err))
				require.Contains(t, persistence.Remedy(err), "-to dpapi")
			}
		})
	}
}

// A call that the system never lets return is left when its time is up.
func TestCredentialManagerCallsAreBounded(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	hang := played(func() (string, error) { <-release; return "", nil })

	_, err := playedSystem(settings{timeout: time.Millisecond}, hang).Get(context.Background(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	k := playedSystem(settings{timeout: time.Hour}, hang)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err = k.Set(ctx, "app", "alice", "x")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, persistence.ErrUnavailable)

	// Where the user may be asked, the context alone counts.
	k = playedSystem(settings{timeout: time.Nanosecond, mayPrompt: true}, func() (string, error) { return "answered", nil })
	ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	got, err := k.Get(ctx, "app", "alice")
	require.NoError(t, err)
	require.Equal(t, "answered", got)
}

// Credentials of other programs, whose targets begin alike, are not listed.
func TestUsersOfAService(t *testing.T) {
	all := []credential{
		{"app:bob", "bob"}, {"app:alice", "alice"}, {"app:alice", "alice"}, {"app:Größe 名前", "Größe 名前"}, {"app:a*?", "a*?"},
		{"app:x:y", "y"}, // of the service "app:x"
		{"app:carol", "somebody"}, {"app:dave", ""}, {"app", "app"}, {"apple:eve", "eve"}, {"APP:frank", "frank"}, {"LegacyGeneric:target=app:g", "g"},
		{"app*:heidi", "heidi"}, {"app:", ""},
	}
	require.Equal(t, []string{"Größe 名前", "a*?", "alice", "bob"}, usersOf("app", all))
	require.Equal(t, []string{"y"}, usersOf("app:x", all))
	require.Equal(t, []string{"heidi"}, usersOf("app*", all))
	require.Empty(t, usersOf("nobody", all))
	for service, filter := range map[string]string{"app": "app:*", "tokenkeep/app x": "tokenkeep/app x:*", "a*b": "a*", "a?b*": "a*", "*": "*"} {
		require.Equal(t, filter, targetFilter(service))
	}
}

// A list ends as the other calls do, and is no list where it may not be whole.
func TestCredentialManagerLists(t *testing.T) {
	fails := errors.New("unknown")
	for name, c := range map[string]struct {
		maximum uint32
		err     error
		class   error
	}{
		"a list":                         {persistLocalMachine, nil, nil},
		"for this session only":          {1, nil, persistence.ErrUnavailable},
		"no logon session":               {persistLocalMachine, errOfTheSystem, persistence.ErrUnavailable},
		"what the system says otherwise": {persistLocalMachine, fails, fails},
	} {
		t.Run(name, func(t *testing.T) {
			k := playedSystem(settings{timeout: time.Minute}, nil)
			m := k.platform.(*credentialManager)
			m.session = func() error { return checkPersistence(c.maximum, nil) }
			m.list = func(filter string) ([]credential, error) {
				require.Equal(t, "app:*", filter)
				return []credential{{"app:alice", "alice"}, {"app:x:y", "y"}}, c.err
			}
			users, err := listing{m}.List(t.Context(), "app")
			if c.class == nil {
				require.NoError(t, err)
				require.Equal(t, []string{"alice"}, users)
				return
			}
			require.ErrorIs(t, err, c.class)
			var e *persistence.Error
			require.ErrorAs(t, err, &e)
		})
	}
	m := playedSystem(settings{timeout: time.Millisecond}, nil).platform.(*credentialManager)
	release := make(chan struct{})
	defer close(release)
	m.list = func(string) ([]credential, error) { <-release; return nil, nil }
	_, err := listing{m}.List(context.Background(), "app")
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = listing{m}.List(ended, "app")
	require.ErrorIs(t, err, context.Canceled)
	_, err = listing{m}.List(t.Context(), "a\nb")
	require.ErrorContains(t, err, "control character")
}

func TestNames(t *testing.T) {
	never := played(func() (string, error) { return "", errors.New("called") })
	for _, bad := range []string{"", "a\nquit", "\xff", strings.Repeat("x", 501)} {
		require.NotContains(t, playedSystem(settings{timeout: time.Hour}, never).Delete(t.Context(), bad, "u").Error(), "called")
		require.NotContains(t, playedSystem(settings{timeout: time.Hour}, never).Delete(t.Context(), "s", bad).Error(), "called")
	}
}

func TestItemLimit(t *testing.T) {
	require.Equal(t, 2560, (*credentialManager)(nil).ItemLimit("app", "alice"))
	for _, name := range []string{"app", "with space", `it's "quoted" \\`, strings.Repeat("é", 200), strings.Repeat(`"`, 500)} {
		limit := (*keychain)(nil).ItemLimit(name, name)
		line := func(n int) int {
			return len(addCommand(name, name, base64.StdEncoding.EncodeToString(make([]byte, n))))
		}
		require.LessOrEqual(t, line(limit), 4095)
		require.Greater(t, line(limit+30), 4095, "the limit wastes no more than a few bytes")
	}
	k := playedSystem(settings{timeout: time.Hour}, func() (string, error) { return "", nil })
	require.NoError(t, k.Set(t.Context(), "app", "alice", strings.Repeat("x", 2560)))
	err := k.Set(t.Context(), "app", "alice", strings.Repeat("x", 2561))
	require.ErrorIs(t, err, persistence.ErrTooLarge)
	require.ErrorContains(t, err, "2560")
}
