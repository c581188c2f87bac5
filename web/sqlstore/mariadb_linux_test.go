package sqlstore_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/web/internal/servers"
	"github.com/tokenkeep/tokenkeep/web/internal/storetest"
	"github.com/tokenkeep/tokenkeep/web/sqlstore"
)

// The dialect of MySQL, on a MariaDB.
func TestMariaDB(t *testing.T) {
	t.Parallel()
	server := servers.StartMariaDB(t)
	conforms := func(t *testing.T, dsn string) {
		persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
			opts := &sqlstore.Options{Table: "t" + strings.ToLower(rand.Text())}
			return func() (persistence.Persistence, error) {
				return newStore(t, servers.OpenMySQL(t, dsn), sqlstore.MySQL, opts).Account("alice"), nil
			}
		}, &persistencetest.Options{MaxSize: sqlstore.MaxSize})
	}
	for name, parameters := range map[string]string{"prepared": "", "interpolated, found rows": "interpolateParams=true&clientFoundRows=true"} {
		t.Run("conforms, "+name, func(t *testing.T) { conforms(t, server.NewDatabase(t, parameters)) })
	}
	t.Run("two apps", func(t *testing.T) {
		storetest.TwoApps(t, open, func(t *testing.T) string { return server.NewDatabase(t, "") })
	})
	t.Run("the condition keeps updates", func(t *testing.T) {
		account, err := open(server.NewDatabase(t, ""))
		require.NoError(t, err)
		storetest.LostWithout(t, account)
	})
	t.Run("one refresh", func(t *testing.T) {
		dsn := server.NewDatabase(t, "")
		storetest.OneRefresh(t, func(t *testing.T) func(string) persistence.Versioned {
			account, err := open(dsn)
			require.NoError(t, err)
			return account
		})
	})
	t.Run("keys that differ little", func(t *testing.T) {
		account, err := open(server.NewDatabase(t, ""))
		require.NoError(t, err)
		keys := []string{"a", "A", "a ", "ä", "á"}
		for _, key := range keys {
			require.NoError(t, account(key).Save(t.Context(), []byte(key)))
		}
		for _, key := range keys {
			storetest.RequireHolds(t, account(key), key)
		}
	})
	t.Run("no table", func(t *testing.T) {
		testNoTable(t, servers.OpenMySQL(t, server.NewDatabase(t, "")), sqlstore.MySQL)
	})
	t.Run("migrates an earlier table", func(t *testing.T) {
		migratesAnEarlierTable(t, servers.OpenMySQL(t, server.NewDatabase(t, "")), sqlstore.MySQL, `CREATE TABLE tokenkeep_accounts (
			account VARBINARY(512) NOT NULL PRIMARY KEY, revision VARBINARY(64) NOT NULL, data LONGBLOB NOT NULL, expires BIGINT NOT NULL)`)
	})
	t.Run("check", func(t *testing.T) {
		warnings, err := newStore(t, servers.OpenMySQL(t, server.NewDatabase(t, "")), sqlstore.MySQL, nil).Check(t.Context())
		require.NoError(t, err)
		require.Empty(t, warnings)
	})
}
