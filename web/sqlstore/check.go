package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/tokenkeep/tokenkeep/web/internal/account"
)

// setting is one of a database's that decides what becomes of a save.
type setting struct {
	query   string
	good    []string
	warning string // said of any other value
}

// Check sees whether the table is there, and asks the database what becomes of
// a save that it has acknowledged. It returns what should be known or changed, a
// sentence or two for a person each, and none where there is nothing to say.
// Call it when the program starts, and log what it returns. It fails where the
// database cannot be asked or the table is missing.
func (s *Store) Check(ctx context.Context) (warnings []string, err error) {
	warnings, err = account.Within(ctx, rows{s}, s.check)
	if err != nil {
		return nil, s.adminError(ctx, "check", err)
	}
	return warnings, nil
}

func (s *Store) check(ctx context.Context) (warnings []string, err error) {
	if _, _, err := (rows{s}).Get(ctx, "", true); err != nil {
		return nil, err
	}
	if _, err := (rows{s}).leaseOf(ctx, ""); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	for _, setting := range s.d.settings {
		var value string
		if err := s.db.QueryRowContext(ctx, setting.query).Scan(&value); err != nil {
			return nil, err
		}
		if !slices.Contains(setting.good, value) {
			warnings = append(warnings, setting.warning)
		}
	}
	if s.d.server && s.db.Stats().MaxOpenConnections == 0 {
		warnings = append(warnings, "The pool of connections has no maximum: under load, requests are several times slower, and the database may run out of connections. Call SetMaxOpenConns and SetMaxIdleConns, with 16 for example.")
	}
	return warnings, nil
}
