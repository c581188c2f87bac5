package sqlstore

import "time"

// SetClock sets the clock that expiry goes by.
func (s *Store) SetClock(now func() time.Time) { s.now = now }

// Schema returns the statements that Migrate runs.
func (s *Store) Schema() []string { return s.schema() }

// Statements returns the statements of the store.
func (s *Store) Statements() []string {
	return []string{s.revision, s.load, s.insert, s.update, s.renew, s.remove, s.removeOld, s.removeExpired, s.leasedBy, s.lease, s.release}
}
