package web_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/reveal"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/firstlevel"
	"github.com/tokenkeep/tokenkeep/web/redisstore"
	"github.com/tokenkeep/tokenkeep/web/sealed"
	"github.com/tokenkeep/tokenkeep/web/session"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
)

// planted is in every secret.
const planted = "planted-secret-of-the-test"

const key = planted + "123456"

const data = `{"RefreshToken":{"r":{"secret":"` + planted + `"}}}`

// harmless are the types that hold no secret, and lead to none, and why.
var harmless = map[string]string{
	"firstlevel.Options":  "numbers",
	"redisstore.Options":  "names and settings",
	"session.Options":     "a number",
	"sqlstore.Options":    "names and settings",
	"sqlstore.Dialect":    "a number",
	"discovery.Transport": "what every client of the authority may know",
}

// secretive makes values of each of the other types, and of what leads to them.
// They hold what is planted.
var secretive = map[string]func(t *testing.T) []any{
	"firstlevel.Memory": func(t *testing.T) []any {
		m := firstlevel.New(nil)
		a := filled(t, m.Account("a", persistence.NewMemory()))
		return []any{m, a}
	},
	"redisstore.Store": func(t *testing.T) []any {
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", Username: "u", Password: planted})
		t.Cleanup(func() { client.Close() })
		s, err := redisstore.New(client, nil)
		require.NoError(t, err)
		return []any{s, s.Account("a")}
	},
	"sealed.Key": func(*testing.T) []any {
		k := sealed.NewKey("k", []byte(key))
		return []any{k, &k}
	},
	"sealed.Keys": func(t *testing.T) []any {
		keys, err := sealed.New(sealed.NewKey("k", []byte(key)), sealed.NewKey("l", []byte(key)))
		require.NoError(t, err)
		return []any{keys, filled(t, keys.Account("a", persistence.NewMemory()))}
	},
	"session.Session": func(t *testing.T) []any {
		var kept []byte
		s := session.New(func(context.Context) ([]byte, error) { return kept, nil }, func(_ context.Context, data []byte) error { kept = data; return nil }, nil)
		return []any{filled(t, s)}
	},
	"sqlstore.Store": func(t *testing.T) []any {
		db, err := sql.Open("pgx", "postgres://u:"+planted+"@127.0.0.1:1/db")
		require.NoError(t, err)
		t.Cleanup(func() { db.Close() })
		s, err := sqlstore.New(db, sqlstore.PostgreSQL, nil)
		require.NoError(t, err)
		return []any{s, s.Account("a")}
	},
}

func filled[P persistence.Persistence](t *testing.T, p P) P {
	require.NoError(t, p.Save(t.Context(), []byte(data)))
	back, err := p.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, data, string(back))
	return p
}

// No exported type prints a secret that it holds or leads to, whatever a program
// does to print it. The control is beside package reveal.
func TestNoTypePrintsItsSecrets(t *testing.T) {
	types, err := reveal.ExportedTypes(".")
	require.NoError(t, err)
	require.NotEmpty(t, types)
	for _, name := range types {
		make, ok := secretive[name]
		require.NotEqual(t, ok, harmless[name] != "", "%s: add the type either to harmless, with the reason, or to secretive", name)
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for _, v := range make(t) {
				out := reveal.All(v)
				if form := reveal.Found(out, planted); form != "" {
					i := strings.Index(out, form)
					t.Errorf("%T prints a secret: …%s…", v, out[max(0, i-200):min(len(out), i+len(form)+20)])
				}
			}
			require.Implements(t, (*fmt.Formatter)(nil), make(t)[0], "it is to print its description")
			require.Implements(t, (*slog.LogValuer)(nil), make(t)[0])
		})
	}
	for name := range harmless {
		require.Contains(t, types, name, "there is no such type any more")
	}
	for name := range secretive {
		require.Contains(t, types, name, "there is no such type any more")
	}
}
