// Package reveal prints a value in every way in which a program may print it by
// mistake, so that a test can look for secrets in the result.
package reveal

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
)

// Verbs are the verbs of package fmt, with the flags that change what they show.
var Verbs = []string{"%v", "%+v", "%#v", "%s", "%#s", "%q", "%+q", "%#q", "%x", "%X", "% x", "%#x", "%d", "%#d", "%t", "%b", "%o", "%O", "%c", "%U", "%#U", "%e", "%E", "%f", "%g", "%G", "%p", "%20v", "%!"}

// All returns what fmt, slog and encoding/json make of v: alone, and as a part of
// other values.
func All(v any) string {
	var out strings.Builder
	for _, value := range []any{
		v, []any{v}, map[string]any{"k": v}, struct{ V any }{v}, &struct{ V any }{v}, struct{ v any }{v}, [1]any{v},
	} {
		for _, verb := range Verbs {
			fmt.Fprintf(&out, verb+"\n", value)
		}
		fmt.Fprintln(&out, value)
		text := slog.New(slog.NewTextHandler(&out, nil))
		text.Info("x", "v", value, slog.Group("g", "v", value))
		text.With("v", value).Info("x")
		structured := slog.New(slog.NewJSONHandler(&out, nil))
		structured.Info("x", "v", value, slog.Group("g", "v", value))
		j, _ := json.Marshal(value)
		out.Write(j)
	}
	return out.String()
}
