package lint

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

// wrappersAreChecked finds exported functions that take a Persistence and return one,
// and that no test gives to persistencetest.RunWrapper.
func wrappersAreChecked(sources []*source) (broken []string) {
	checked := make(map[string]bool)
	for _, s := range sources {
		if s.ast == nil || !s.isTest() {
			continue
		}
		s.calls(func(call *ast.CallExpr, on, name string) {
			if on != "persistencetest" || name != "RunWrapper" {
				return
			}
			for _, arg := range call.Args {
				ast.Inspect(arg, func(n ast.Node) bool {
					if sel, ok := n.(*ast.SelectorExpr); ok {
						checked[path.Base(path.Dir(s.path))+"."+sel.Sel.Name] = true
					}
					return true
				})
			}
		})
	}
	for _, s := range sources {
		// Internal packages are reached through exported ones.
		if s.ast == nil || s.isTest() || strings.Contains("/"+s.path, "/internal/") {
			continue
		}
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !f.Name.IsExported() || !hasBackend(f.Type.Params) || !hasBackend(f.Type.Results) {
				continue
			}
			if !checked[path.Base(path.Dir(s.path))+"."+f.Name.Name] {
				broken = append(broken, fmt.Sprintf("%s: %s wraps a Persistence: give it to persistencetest.RunWrapper in a test of its package", s.at(f), f.Name.Name))
			}
		}
	}
	return broken
}

func hasBackend(fields *ast.FieldList) bool {
	return fields != nil && slices.ContainsFunc(fields.List, func(f *ast.Field) bool {
		name := typeName(f.Type)
		return name == "Persistence" || name == "Versioned"
	})
}

// abilitiesAreKnown compares the optional interfaces that package persistence asks a
// backend for with those that the conformance suite, and so RunWrapper, knows.
func abilitiesAreKnown(sources []*source) (broken []string) {
	asked := make(map[string]string)
	known := make(map[string]string)
	interfaces := interfacesOf(sources)
	for _, s := range sources {
		if s.ast == nil || s.isTest() {
			continue
		}
		dir := path.Dir(s.path)
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				t, ok := n.(*ast.TypeAssertExpr)
				if !ok || t.Type == nil {
					return true
				}
				switch name := typeName(t.Type); {
				case dir == "persistence" && ast.IsExported(name) && interfaces[name] != nil:
					asked[name] = s.at(t)
				case dir == "persistence/persistencetest" && f.Name.Name == "abilitiesOf":
					known[name] = s.at(t)
				}
				return true
			})
		}
	}
	for name, at := range asked {
		if known[name] == "" {
			broken = append(broken, at+": persistencetest's abilitiesOf does not know the ability "+name)
		}
	}
	for name, at := range known {
		if asked[name] == "" {
			broken = append(broken, at+": no code of package persistence asks for the ability "+name)
		}
	}
	return broken
}

// readmeCompiles finds blocks of Go code in README.md that are in no test file: those
// are compiled.
func readmeCompiles(sources []*source) (broken []string) {
	var tests []string
	for _, s := range sources {
		if s.ast != nil && s.isTest() && path.Base(s.path) == "readme_test.go" {
			tests = append(tests, unindented(string(s.text)))
		}
	}
	for _, s := range sources {
		if s.path != "README.md" {
			continue
		}
		for n, block := range strings.Split("\n"+string(s.text), "\n```go\n")[1:] {
			code, _, _ := strings.Cut(block, "\n```")
			code = unindented(code)
			if !slices.ContainsFunc(tests, func(test string) bool { return strings.Contains(test, code) }) {
				broken = append(broken, fmt.Sprintf("README.md: Go block %d is in no readme_test.go, so nobody knows whether it compiles", n+1))
			}
		}
	}
	return broken
}

// unindented returns text with each line between two line feeds, and without what
// indents it.
func unindented(text string) string {
	var b strings.Builder
	b.WriteByte('\n')
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimSpace(line))
		b.WriteByte('\n')
	}
	return b.String()
}
