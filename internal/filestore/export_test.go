package filestore

import (
	"time"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// SetGrace sets how long a stamp must be unchanged before it is trusted.
func (s *Store) SetGrace(d time.Duration) { s.grace = d }

// SetStamps puts stamp between the file system and s.
func (s *Store) SetStamps(stamp func(securefile.Stamp) securefile.Stamp) { s.coarsen = stamp }
