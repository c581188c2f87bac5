package persistence_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestClassOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("mine"), "other"},
		{persistence.ErrUnavailable, "unavailable"},
		{fmt.Errorf("%w: %w", persistence.ErrUnavailable, context.DeadlineExceeded), "timeout"},
		{fmt.Errorf("%w: %w", persistence.ErrLockTimeout, context.DeadlineExceeded), "lock-timeout"},
		{fmt.Errorf("%w: %w", persistence.ErrKeyringLocked, context.DeadlineExceeded), "locked"},
		{&persistence.Error{Op: "load", Err: persistence.ErrWrongKey}, "wrong-key"},
		{persistence.ErrNotFound, "not-found"},
		{persistence.ErrCorrupt, "corrupt"},
		{persistence.ErrKeyMissing, "key-missing"},
		{persistence.ErrUnsupportedVersion, "unsupported-version"},
		{persistence.ErrTooLarge, "too-large"},
		{persistence.ErrConflict, "conflict"},
		{context.Canceled, "canceled"},
	} {
		require.Equal(t, test.want, persistence.ClassOf(test.err), "%v", test.err)
	}
}
