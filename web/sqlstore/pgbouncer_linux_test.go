package sqlstore_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/internal/storetest"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
)

// Through a pooler that gives each transaction another connection, pgx needs a
// setting. Without it, the control, statements fail, and the errors name it.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	pg := servers.StartPostgres(t, "fsync=off")
	addr := pg.StartPgBouncer(t)
	url := func(database, mode string) string {
		return fmt.Sprintf("postgres://test@%s/%s?sslmode=disable%s", addr, database, mode)
	}
	const exec = "&default_query_exec_mode=exec"
	t.Run("conforms", func(t *testing.T) {
		where := url(pg.NewDatabase(t), exec)
		persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
			opts := &sqlstore.Options{Table: "t" + strings.ToLower(rand.Text())}
			return func() (persistence.Persistence, error) {
				return newStore(t, servers.OpenPostgres(t, where), sqlstore.PostgreSQL, opts).Account("alice"), nil
			}
		}, &persistencetest.Options{MaxSize: sqlstore.MaxSize})
	})
	t.Run("one refresh", func(t *testing.T) {
		where := url(pg.NewDatabase(t), exec)
		storetest.OneRefresh(t, func(t *testing.T) func(string) persistence.Versioned {
			account, err := open(where)
			require.NoError(t, err)
			return account
		})
	})
	// save lets 16 goroutines save, each to an account of its own.
	save := func(t *testing.T, mode string) (failed []error) {
		name := pg.NewDatabase(t)
		newStore(t, servers.OpenPostgres(t, pg.URL(name)), sqlstore.PostgreSQL, nil)
		s, err := sqlstore.New(servers.OpenPostgres(t, url(name, mode)), sqlstore.PostgreSQL, nil)
		require.NoError(t, err)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for n := range 16 {
			wg.Go(func() {
				for range 20 {
					if err := s.Account(fmt.Sprint("user", n)).Save(t.Context(), []byte(storetest.Planted)); err != nil {
						mu.Lock()
						failed = append(failed, err)
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		return failed
	}
	t.Run("saves", func(t *testing.T) { require.Empty(t, save(t, exec)) })
	t.Run("saves as it comes, the control", func(t *testing.T) {
		failed := save(t, "")
		require.NotEmpty(t, failed)
		require.True(t, strings.Contains(fmt.Sprint(failed), "default_query_exec_mode=exec"), "%v", failed)
		for _, err := range failed {
			storetest.RequireNoSecret(t, err)
		}
	})
}
