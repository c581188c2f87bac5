package keyring

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Every declared Situation has a class, and reaches a caller through
// all that an error is wrapped in.
func TestSituations(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "trouble.go", nil, 0)
	require.NoError(t, err)
	declared := map[Situation]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && fmt.Sprint(spec.Type) == "Situation" && len(spec.Values) == 1 {
			word, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			declared[Situation(word)] = true
		}
		return true
	})
	require.Len(t, declared, len(situations))
	for s := range declared {
		known := situations[s]
		require.NotNil(t, known.class, s)
		require.Equal(t, strings.TrimSuffix(known.class.Error()+": "+known.text, ": "), s.Error())
		for _, err := range []error{
			s, newTrouble(s, "what", "help"), annotate(newTrouble(s, "what", "help"), "note"),
			wrap("get", "app", "alice", newTrouble(s, "what", "help")),
			wrap("key", "app", "alice", wrap("get", "app", "alice", s)),
			fmt.Errorf("a program: %w", s),
		} {
			require.Equal(t, s, SituationOf(err))
			require.ErrorIs(t, err, s)
			require.ErrorIs(t, err, known.class)
			require.Equal(t, 1, strings.Count(err.Error(), known.class.Error()), "%v", err)
		}
	}
	for _, err := range []error{nil, persistence.ErrNotFound, tooLarge(2, 1), context.Canceled, persistence.ErrUnavailable} {
		require.Empty(t, SituationOf(err))
	}
	require.Equal(t, "of another program", Situation("of another program").Error())
	require.ErrorIs(t, noAnswer("it", time.Second), context.DeadlineExceeded)
	require.ErrorIs(t, unsupported("none"), errors.ErrUnsupported)
}

// Through any number of layers an error says each thing once: one operation, one
// place, one cause, one remedy.
func TestErrorsAreWordedOnce(t *testing.T) {
	inner := wrap("get", "app", "alice", newTrouble(Locked, "its user would have to be asked", "Unlock it."))
	require.Equal(t, "tokenkeep: save keyring app/alice: the keyring is locked: its user would have to be asked (the previous value is still stored). Unlock it.",
		wrap("save", "app", "alice", annotate(inner, "the previous value is still stored")).Error())
	require.Equal(t, "tokenkeep: key keyring app/alice: the keyring is locked: its user would have to be asked. Unlock it.",
		wrap("key", "app", "alice", inner).Error())
}
