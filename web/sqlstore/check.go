package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/tokenkeep/tokenkeep/web/internal/account"
)

// setting is a setting of a database that decides what happens to a save.
type setting struct {
	query   string
	good    []string
	warning string // said of any other value
}

// Check asks the database whether the table is there, and what happens to a save that
// it has acknowledged. It returns warnings, each of one or two sentences for a person.
// Call it when the program starts, and log the warnings. It fails if the database
// cannot be asked or the table is missing.
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
