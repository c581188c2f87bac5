package opaque_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/opaque"
	"github.com/tokenkeep/tokenkeep/internal/test/reveal"
)

type value struct{ secret string }

func (value) Format(s fmt.State, verb rune) { opaque.Format(s, verb, "a value") }

func TestFormat(t *testing.T) {
	v := value{"hidden"}
	for verb, want := range map[string]string{"%v": "a value", "%#v": "a value", "%x": "a value", "%d": "a value", "%q": `"a value"`, "%10v|": "   a value|", "%-10s|": "a value   |"} {
		require.Equal(t, want, fmt.Sprintf(verb, v))
	}
}

// The control: a type that does not format itself is caught.
func TestRevealed(t *testing.T) {
	type open struct{ secret string }
	require.Contains(t, reveal.All(open{"hidden"}), "hidden")
	require.NotContains(t, fmt.Sprintf("%v %+v %#v %s %q %x", value{"hidden"}, value{"hidden"}, value{"hidden"}, value{"hidden"}, value{"hidden"}, value{"hidden"}), "hidden")
}
