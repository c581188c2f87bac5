package tokenkeep

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/ledger"
	"github.com/tokenkeep/tokenkeep/internal/transfer"
)

// A program that keeps plaintext saves once more between the copy and the
// removal. What it changed is known and moved as well: also a new account, and a
// sign-out. Without the copy it is plaintext of unknown origin.
func TestPlaintextIsSavedDuringThePromotion(t *testing.T) {
	const (
		ann = `"ann":{"home_account_id":"ann","environment":"login"}`
		ben = `"ben":{"home_account_id":"ben","environment":"login"}`
		cy  = `"cy":{"home_account_id":"cy","environment":"login"}`
	)
	before, after := []byte(`{"Account":{`+ann+`,`+ben+`}}`), []byte(`{"Account":{`+ann+`,`+cy+`}}`)
	p := &promoter{ledger: ledger.In(filepath.Join(t.TempDir(), "none.lock"))}

	m := promotion{promoter: p}
	next, err := m.combine(transfer.Held{From: before, Rev: "1"})
	require.NoError(t, err)
	require.Equal(t, transfer.Next{Data: before, Changed: true}, next)
	next, err = m.combine(transfer.Held{From: after, Rev: "2", To: before, Copied: before})
	require.NoError(t, err)
	require.JSONEq(t, string(after), string(next.Data))
	require.True(t, next.Changed)
	require.False(t, next.Keep)

	m = promotion{promoter: p} // of another process
	next, err = m.combine(transfer.Held{From: after, Rev: "2", To: before})
	require.NoError(t, err)
	require.JSONEq(t, string(before), string(next.Data))
	require.False(t, next.Changed)
	require.True(t, next.Keep)
	// Nor is a later try of it any wiser.
	next, err = m.combine(transfer.Held{From: after, Rev: "2", To: before, Copied: before})
	require.NoError(t, err)
	require.False(t, next.Changed)
}
