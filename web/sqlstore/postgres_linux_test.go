package sqlstore_test

import (
	"os"
	"testing"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func TestPostgreSQLConformance(t *testing.T) {
	pg := servers.SharedPostgres(t)
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		name := pg.NewDatabase(t)
		return func() (persistence.Persistence, error) {
			return newStore(t, servers.OpenPostgres(t, pg.URL(name)), sqlstore.PostgreSQL, nil).Account("alice"), nil
		}
	}, &persistencetest.Options{MaxSize: sqlstore.MaxSize})
}
