package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// An old copy that is no cache is removed. One that is a cache stays if it cannot be
// stored, also if that is because what is stored here is damaged.
func TestAdoptRemovesNothingThatIsOfUse(t *testing.T) {
	const good = `{"RefreshToken":{"k":{"secret":"xyzzy"}}}`
	for name, test := range map[string]struct {
		old     string
		fails   error // of the store
		removed bool
	}{
		"half a cache":              {good[:20], nil, true},
		"the store is damaged":      {good, persistence.ErrCorrupt, false},
		"the store does not answer": {good, persistence.ErrUnavailable, false},
		"control":                   {good, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			var faults []persistencetest.Fault
			if test.fails != nil {
				faults = append(faults, persistencetest.Fault{Op: "LoadRevision", Err: test.fails})
			}
			tokens, err := persistence.New(persistencetest.Faulty(persistence.NewMemory(), faults...))
			require.NoError(t, err)
			removed := false
			err = adopt(t.Context(), tokens, origin{
				read:   func(context.Context) ([]byte, error) { return []byte(test.old), nil },
				remove: func(context.Context) error { removed = true; return nil },
			})
			require.ErrorIs(t, err, test.fails)
			require.Equal(t, test.removed, removed)
		})
	}
}
