package fallback_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func works(context.Context) (persistence.Persistence, error) { return persistence.NewMemory(), nil }

func refuses(err error) func(context.Context) (persistence.Persistence, error) {
	return func(context.Context) (persistence.Persistence, error) { return nil, err }
}

// noBus is a refusal as it comes through two backends.
var noBus = &persistence.Error{Op: "prove", Backend: "encrypted", Location: "/x.enc", Remedy: "Start a session bus.",
	Err: &persistence.Error{Op: "get", Backend: "keyring", Location: "service/user", Err: fmt.Errorf("%w: no bus", persistence.ErrUnavailable)}}

func TestChooseTakesTheFirstThatWorks(t *testing.T) {
	never := func(context.Context) (persistence.Persistence, error) {
		t.Error("opened though an earlier one works")
		return nil, nil
	}
	choice, err := fallback.Choose(context.Background(),
		fallback.Candidate{Name: "keyring", Open: refuses(noBus)},
		fallback.Candidate{Name: "memory", Open: works},
		fallback.Candidate{Name: "plaintext", Open: never})
	require.NoError(t, err)
	require.Equal(t, "memory", choice.Candidate)
	require.NotNil(t, choice.Persistence)
	require.Len(t, choice.Refusals, 1)
	require.Equal(t, "keyring", choice.Refusals[0].Candidate)
	require.Equal(t, "not available in this environment: no bus", choice.Refusals[0].Reason())
	require.Equal(t, "Start a session bus.", choice.Refusals[0].Remedy())
}

func TestChooseKeepsEveryRefusal(t *testing.T) {
	mine := errors.New("mine")
	_, err := fallback.Choose(context.Background(),
		fallback.Candidate{Name: "keyring", Open: refuses(noBus)},
		fallback.Candidate{Name: "vault", Open: refuses(mine)})
	var none *fallback.NoneError
	require.ErrorAs(t, err, &none)
	require.Len(t, none.Refusals, 2)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorIs(t, err, mine)
	require.Equal(t, "tokenkeep: there is no safe place to keep the tokens\n"+
		"  keyring: not available in this environment: no bus. Start a session bus.\n"+
		"  vault: mine", err.Error())
	_, err = fallback.Choose(context.Background())
	require.ErrorAs(t, err, &none)
}

func TestChooseBoundsACandidate(t *testing.T) {
	hangs := func(ctx context.Context) (persistence.Persistence, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	choice, err := fallback.Choose(context.Background(),
		fallback.Candidate{Name: "hangs", Open: hangs, Timeout: time.Nanosecond},
		fallback.Candidate{Name: "memory", Open: works})
	require.NoError(t, err)
	require.Equal(t, "memory", choice.Candidate)
	require.ErrorIs(t, choice.Refusals[0].Err, context.DeadlineExceeded)

	over, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = fallback.Choose(over, fallback.Candidate{Name: "hangs", Open: hangs}, fallback.Candidate{Name: "memory", Open: works})
	require.ErrorIs(t, err, context.Canceled, "when the caller gives up, nothing further is tried")
}

// A candidate that may only stand in for what does not exist is not opened after
// one that exists.
func TestChooseAsksWhatMayFollow(t *testing.T) {
	locked := fmt.Errorf("%w", persistence.ErrKeyringLocked)
	notAfterLocked := func(before []fallback.Refusal) error {
		for _, r := range before {
			if errors.Is(r.Err, persistence.ErrKeyringLocked) {
				return errors.New(r.Candidate + " exists")
			}
		}
		return nil
	}
	for _, err := range []error{noBus, locked} {
		opened := false
		open := func(ctx context.Context) (persistence.Persistence, error) { opened = true; return works(ctx) }
		choice, chooseErr := fallback.Choose(context.Background(),
			fallback.Candidate{Name: "keyring", Open: refuses(err)},
			fallback.Candidate{Name: "plaintext", Open: open, After: notAfterLocked})
		require.Equal(t, err == noBus, opened)
		if opened {
			require.NoError(t, chooseErr)
			require.Equal(t, "plaintext", choice.Candidate)
			continue
		}
		require.ErrorContains(t, chooseErr, "\n  plaintext: keyring exists")
	}
}

func TestRefusalAsData(t *testing.T) {
	for want, r := range map[string]fallback.Refusal{
		`{"candidate":"keyring","class":"unavailable","reason":"not available in this environment: no bus","remedy":"Start a session bus."}`: {Candidate: "keyring", Err: noBus},
		`{"candidate":"vault","class":"other","reason":"mine"}`:                                                                              {Candidate: "vault", Err: errors.New("mine")},
		`{"candidate":"none","class":"","reason":""}`:                                                                                        {Candidate: "none"},
	} {
		data, err := json.Marshal(r)
		require.NoError(t, err)
		require.JSONEq(t, want, string(data))
	}
}
