// Package storetest tests stores of accounts as two web apps use them at once.
package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Open opens the store that is at where, as an app does that starts, and
// returns what gives the cache of an account.
type Open func(where string) (account func(key string) persistence.Versioned, err error)

const (
	workers = 8 // in both processes
	updates = 25
	user    = "uid.utid"
	// appEnv holds the store that this process is to be an app of, as JSON.
	appEnv = "TOKENKEEP_TEST_APP"
)

// job is what a process does.
type job struct {
	Where       string
	First       int // of its workers
	Partitioned bool
}

// Main is for TestMain: where this process was started by TwoApps to be an app,
// it is one, and ends.
func Main(open Open) {
	text := os.Getenv(appEnv)
	if text == "" {
		return
	}
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = j.run(open)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TwoApps lets two processes update one account at once, 4 × 25 times each,
// and checks that no update is lost: through a Cache, and through a
// Partitioned. where is an empty store each time.
func TwoApps(t *testing.T, open Open, where func(t *testing.T) string) {
	for name, partitioned := range map[string]bool{"Cache": false, "Partitioned": true} {
		t.Run(name, func(t *testing.T) {
			where := where(t)
			exe, err := os.Executable()
			require.NoError(t, err)
			var apps []*exec.Cmd
			var said bytes.Buffer
			for first := 0; first < workers; first += workers / 2 {
				text, err := json.Marshal(job{where, first, partitioned})
				require.NoError(t, err)
				app := exec.CommandContext(t.Context(), exe)
				app.Env = append(os.Environ(), appEnv+"="+string(text))
				app.Stderr = &lockedWriter{w: &said, mu: make(chan struct{}, 1)}
				require.NoError(t, app.Start())
				apps = append(apps, app)
			}
			for _, app := range apps {
				err := app.Wait()
				require.NoError(t, err, "%s", said.String())
			}
			account, err := open(where)
			require.NoError(t, err)
			data, err := account(user).Load(t.Context())
			require.NoError(t, err)
			var got tokens
			require.NoError(t, got.Unmarshal(data))
			require.Len(t, got.entries, workers*updates)
		})
	}
}

type lockedWriter struct {
	w  *bytes.Buffer
	mu chan struct{}
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu <- struct{}{}
	defer func() { <-l.mu }()
	return l.w.Write(b)
}

func (j job) run(open Open) error {
	account, err := open(j.Where)
	if err != nil {
		return err
	}
	var c cache.ExportReplace
	if j.Partitioned {
		c, err = persistence.NewPartitioned(func(_ context.Context, key string) (persistence.Persistence, error) { return account(key), nil }, persistence.WithStrict())
	} else {
		c, err = persistence.New(account(user), persistence.WithStrict())
	}
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range workers / 2 {
		go func() {
			var err error
			for n := 0; n < updates && err == nil; n++ {
				err = Update(c, fmt.Sprintf("%s-login.example-accesstoken-app%d-n%d", user, j.First+w, n))
			}
			failed <- err
		}()
	}
	for range workers / 2 {
		err = errors.Join(err, <-failed)
	}
	return err
}

// Update does what an app does for a request that gets a new token: it makes
// an in-memory cache, fills it, adds the token and stores it.
func Update(c cache.ExportReplace, token string) error {
	ctx := context.Background()
	var memory tokens
	if err := c.Replace(ctx, &memory, cache.ReplaceHints{PartitionKey: user}); err != nil {
		return err
	}
	memory.add(token)
	return c.Export(ctx, &memory, cache.ExportHints{PartitionKey: user})
}

// LostWithout checks that the condition of SaveIf is what keeps updates: of
// two apps of which one writes just before the other does, the first loses its
// update if the account's SaveIf saves whatever the revision, and not as it is.
func LostWithout(t *testing.T, account func(key string) persistence.Versioned) {
	for name, test := range map[string]struct {
		p    persistence.Versioned
		want int
	}{
		"with the condition":                 {account(user + "1"), 2},
		"without the condition, the control": {unconditional{account(user + "2")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			other, err := persistence.New(test.p)
			require.NoError(t, err)
			one, err := persistence.New(&interrupted{test.p, func() { require.NoError(t, Update(other, user+"-login.example-accesstoken-other")) }})
			require.NoError(t, err)
			require.NoError(t, Update(one, user+"-login.example-accesstoken-one"))
			data, err := test.p.Load(t.Context())
			require.NoError(t, err)
			var got tokens
			require.NoError(t, got.Unmarshal(data))
			require.Len(t, got.entries, test.want)
		})
	}
}

// unconditional is a store whose SaveIf is a Save.
type unconditional struct{ persistence.Versioned }

func (u unconditional) SaveIf(ctx context.Context, data []byte, _ string) (string, error) {
	if err := u.Save(ctx, data); err != nil {
		return "", err
	}
	return u.Revision(ctx)
}

// interrupted is a store that somebody else uses just before the first SaveIf.
type interrupted struct {
	persistence.Versioned
	by func()
}

func (i *interrupted) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	if by := i.by; by != nil {
		i.by = nil
		by()
	}
	return i.Versioned.SaveIf(ctx, data, rev)
}

// tokens is an in-memory cache of access tokens.
type tokens struct{ entries map[string]json.RawMessage }

func (k *tokens) Marshal() ([]byte, error) {
	return json.Marshal(map[string]any{"AccessToken": k.entries})
}

func (k *tokens) Unmarshal(data []byte) error {
	var sections map[string]map[string]json.RawMessage
	if err := json.Unmarshal(data, &sections); err != nil {
		return err
	}
	k.entries = maps.Clone(sections["AccessToken"])
	return nil
}

func (k *tokens) add(token string) {
	if k.entries == nil {
		k.entries = map[string]json.RawMessage{}
	}
	k.entries[token] = json.RawMessage(fmt.Sprintf(`{"home_account_id":%q,"secret":"s"}`, user))
}
