package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sleeps are the files whose tests may call time.Sleep, and why. In none of
// them does the result depend on how long the sleep was.
var sleeps = map[string]string{
	"bench/open_test.go":             "a keyring that takes as long as a real one",
	"bench/bench_test.go":            "a revision has to be 2 s old before a stat stands for it, and that is what is measured",
	"encrypted/child_test.go":        "a process that hangs until it is killed",
	"encrypted/keys_test.go":         "looks again until a process has written its id",
	"keyring/secretservice_test.go":  "looks again until what was told to end has ended",
	"tokensource/flight_test.go":     "in a bubble of testing/synctest, where time is no real time",
	"internal/within/within_test.go": "in a bubble of testing/synctest, where time is no real time",
}

// skips are the files that may skip a test other than by env.Require or
// for the platform, and why. A test that is skipped under CI tests nothing, so
// each is a decision.
var skips = map[string]string{
	"internal/test/env/env.go": "it is the one place that skips",
	"web/internal/env/env.go":  "the same for the module web, which imports no internal package of this one",

	// These fail under CI as well.
	"encrypted/vectors_test.go":                    "needs Python with a module",
	"internal/test/proof/mount_linux_test.go":      "takes minutes, or needs loop devices; not in long mode",
	"internal/securefile/powercut_linux_test.go":   "needs the right to mount",
	"internal/securefile/refuse_unix_test.go":      "needs root",
	"internal/test/secretservice/secretservice.go": "needs a D-Bus daemon and a keyring",
	"internal/test/sweep/sweep.go":                 "needs strace",
}

// source is one file of the repository.
type source struct {
	path string // from the repository's root, with slashes
	text []byte
	ast  *ast.File // nil unless it is Go
	fset *token.FileSet
}

func newSource(t *testing.T, path string, text []byte) *source {
	t.Helper()
	s := &source{path: path, text: text, fset: token.NewFileSet()}
	if strings.HasSuffix(path, ".go") && !strings.Contains(path, "testdata/") {
		var err error
		if s.ast, err = parser.ParseFile(s.fset, path, text, parser.ParseComments); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s *source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

// A law returns what breaks it among sources.
type law func(sources []*source) []string

var laws = map[string]law{
	"every package has one package comment":                   onePackageComment,
	"every exported name has a comment":                       exportedComments,
	"tests do not sleep":                                      noSleep,
	"tests are skipped by env.Require, and say why":           skipsSayWhy,
	"nothing names a folder of the machine it was written on": noLocalPaths,
	"no module needs another one's internal packages":         noForeignInternals,
	"documents name tests that exist":                         namedTests,
	"links in comments lead somewhere":                        docLinks,
	"docs/design.md names every internal package":             designedPackages,
	"what wraps a backend passes on its abilities":            wrappersAreChecked,
	"the conformance suite knows every ability":               abilitiesAreKnown,
	"links in documents lead somewhere":                       documentLinks,
	"the README's code compiles":                              readmeCompiles,
	"imports point down the list of docs/design.md":           importsDownwards,
}

func TestLaws(t *testing.T) {
	sources := repository(t)
	for name, broken := range laws {
		t.Run(name, func(t *testing.T) {
			for _, b := range broken(sources) {
				t.Error(b)
			}
		})
	}
}

// repository returns the files of the repository, of all its modules.
func repository(t *testing.T) (sources []*source) {
	root := filepath.Join("..", "..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	err := fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".git" { // a folder or, in a worktree, a file
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := fs.ReadFile(os.DirFS(root), p)
		if err == nil && !bytes.Contains(text, []byte{0}) { // a binary file has no words
			sources = append(sources, newSource(t, p, text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

func onePackageComment(sources []*source) (broken []string) {
	type pkg struct{ dir, name string }
	comments := make(map[pkg][]*source)
	for _, s := range sources {
		if s.ast == nil || s.isTest() {
			continue
		}
		p := pkg{path.Dir(s.path), s.ast.Name.Name}
		comments[p] = append(comments[p], nil)[:len(comments[p])]
		if s.ast.Doc == nil {
			continue
		}
		comments[p] = append(comments[p], s)
		if text := s.ast.Doc.Text(); p.name != "main" && !strings.HasPrefix(text, "Package "+p.name+" ") {
			broken = append(broken, fmt.Sprintf(`%s: the package comment does not begin with "Package %s"`, s.path, p.name))
		}
	}
	for p, in := range comments {
		if len(in) != 1 {
			broken = append(broken, fmt.Sprintf("%s: package %s has %d package comments", p.dir, p.name, len(in)))
		}
	}
	slices.Sort(broken)
	return broken
}

// wellKnown are methods of the standard library's interfaces that do what
// everybody expects.
var wellKnown = []string{
	"Error", "Unwrap", "Is", "As", "String", "LogValue", "ServeHTTP",
	"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText",
}

// exportedComments needs no comment on a method of an interface that the
// package asserts its type to implement (var _ I = …): the interface's comment
// is its contract.
func exportedComments(sources []*source) (broken []string) {
	interfaces := interfacesOf(sources)
	asserted := make(map[string][]string) // names of methods, by folder and type
	for _, s := range sources {
		if s.ast != nil && !s.isTest() {
			s.assertions(func(i, t string) {
				key := path.Dir(s.path) + " " + t
				asserted[key] = append(asserted[key], interfaces[i]...)
			})
		}
	}
	for _, s := range sources {
		if s.ast == nil || s.isTest() || s.ast.Name.Name == "main" {
			continue
		}
		missing := func(name *ast.Ident) {
			if name.IsExported() && !slices.Contains(wellKnown, name.Name) {
				broken = append(broken, fmt.Sprintf("%s: %s has no comment", s.at(name), name.Name))
			}
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Doc != nil {
					continue
				}
				if d.Recv == nil {
					missing(d.Name)
				} else if t := typeName(d.Recv.List[0].Type); ast.IsExported(t) && !slices.Contains(asserted[path.Dir(s.path)+" "+t], d.Name.Name) {
					missing(d.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						if d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
							missing(spec.Name)
						}
					case *ast.ValueSpec:
						if d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
							for _, name := range spec.Names {
								missing(name)
							}
						}
					}
				}
			}
		}
	}
	return broken
}

// interfacesOf returns the names of the methods of each interface that sources
// declare, by the interface's name without its package.
func interfacesOf(sources []*source) map[string][]string {
	methods := make(map[string][]string)
	embedded := make(map[string][]string)
	for _, s := range sources {
		if s.ast == nil || s.isTest() {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if i, ok := spec.Type.(*ast.InterfaceType); ok {
				for _, m := range i.Methods.List {
					for _, name := range m.Names {
						methods[spec.Name.Name] = append(methods[spec.Name.Name], name.Name)
					}
					if len(m.Names) == 0 {
						embedded[spec.Name.Name] = append(embedded[spec.Name.Name], typeName(m.Type))
					}
				}
			}
			return true
		})
	}
	all := make(map[string][]string)
	var collect func(into, from string)
	collect = func(into, from string) {
		all[into] = append(all[into], methods[from]...)
		for _, e := range embedded[from] {
			collect(into, e)
		}
	}
	for _, names := range []map[string][]string{methods, embedded} {
		for name := range names {
			if all[name] == nil {
				collect(name, name)
			}
		}
	}
	return all
}

// assertions calls f with the names of the interface and of the type in each
// assertion of the form var _ I = (*T)(nil), T{}, &T{}, new(T) or T(nil).
func (s *source) assertions(f func(i, t string)) {
	for _, d := range s.ast.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			if v.Type == nil {
				continue
			}
			for n, name := range v.Names {
				if name.Name != "_" || n >= len(v.Values) {
					continue
				}
				x := v.Values[n]
				if call, ok := x.(*ast.CallExpr); ok {
					if fun, ok := call.Fun.(*ast.Ident); ok && fun.Name == "new" && len(call.Args) == 1 {
						x = call.Args[0]
					} else {
						x = call.Fun
					}
				}
				if u, ok := x.(*ast.UnaryExpr); ok {
					x = u.X
				}
				if lit, ok := x.(*ast.CompositeLit); ok {
					x = lit.Type
				}
				f(typeName(v.Type), typeName(x))
			}
		}
	}
}

// typeName returns the name of a type, of a pointer to it or of an instance of
// it, without its package; "" if it has none.
func typeName(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.Ident:
		return t.Name
	case *ast.SelectorExpr:
		return t.Sel.Name
	case *ast.StarExpr:
		return typeName(t.X)
	case *ast.ParenExpr:
		return typeName(t.X)
	case *ast.IndexExpr:
		return typeName(t.X)
	case *ast.IndexListExpr:
		return typeName(t.X)
	}
	return ""
}

// calls calls f with each call of a method or of another package's function.
func (s *source) calls(f func(call *ast.CallExpr, on, name string)) {
	ast.Inspect(s.ast, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
				on := ""
				if x, ok := sel.X.(*ast.Ident); ok {
					on = x.Name
				}
				f(call, on, sel.Sel.Name)
			}
		}
		return true
	})
}

func noSleep(sources []*source) (broken []string) {
	for _, s := range sources {
		if s.ast == nil || !s.isTest() && !strings.HasPrefix(s.path, "internal/test/env/") || sleeps[s.path] != "" {
			continue
		}
		s.calls(func(call *ast.CallExpr, on, name string) {
			if on == "time" && name == "Sleep" {
				broken = append(broken, s.at(call)+": wait for the event, not for a time (or say in sleeps, in internal/test/lint, why this one must)")
			}
		})
	}
	return broken
}

func skipsSayWhy(sources []*source) (broken []string) {
	for _, s := range sources {
		if s.ast == nil || !s.isTest() && !bytes.Contains(s.text, []byte(`"testing"`)) {
			continue
		}
		platform := s.platformBranches()
		s.calls(func(call *ast.CallExpr, _, name string) {
			if name != "Skip" && name != "Skipf" && name != "SkipNow" {
				return
			}
			forPlatform := slices.ContainsFunc(platform, func(b *ast.BlockStmt) bool { return b.Pos() <= call.Pos() && call.End() <= b.End() })
			if len(call.Args) == 0 {
				broken = append(broken, s.at(call)+": a skip without a reason")
			} else if !forPlatform && skips[s.path] == "" {
				broken = append(broken, s.at(call)+": use env.Require, which fails under CI (or say in skips, in internal/test/lint, why this one may skip there)")
			}
		})
	}
	return broken
}

// platformBranches returns the blocks that run on certain platforms only: those
// after a condition about runtime.GOOS and nothing else.
func (s *source) platformBranches() (blocks []*ast.BlockStmt) {
	ast.Inspect(s.ast, func(n ast.Node) bool {
		branch, ok := n.(*ast.IfStmt)
		if !ok {
			return true
		}
		cond, ok := branch.Cond.(*ast.BinaryExpr)
		if !ok || cond.Op != token.EQL && cond.Op != token.NEQ {
			return true
		}
		if sel, ok := cond.X.(*ast.SelectorExpr); ok && sel.Sel.Name == "GOOS" {
			blocks = append(blocks, branch.Body)
		}
		return true
	})
	return blocks
}

// localPath matches a path in the home or working folder of a person or a
// machine. It is put together so as not to match itself.
var localPath = regexp.MustCompile(`(?:^|[\s"'` + "`" + `=(:,])(/(?:` + strings.Join([]string{"root", "work", "farm", "home/[a-z]+", "Users/[a-z]+"}, "|") + `)/[\w.]+)`)

func noLocalPaths(sources []*source) (broken []string) {
	for _, s := range sources {
		for n, line := range strings.Split(string(s.text), "\n") {
			if m := localPath.FindStringSubmatch(line); m != nil {
				broken = append(broken, fmt.Sprintf("%s:%d: %s", s.path, n+1, m[1]))
			}
		}
	}
	return broken
}

// unpublished are the modules that nobody requires, and why.
var unpublished = map[string]string{
	"bench": "it measures this repository",
}

var moduleLine = regexp.MustCompile(`(?m)^module (\S+)`)

// noForeignInternals finds imports of another module's internal packages. Modules
// are upgraded one by one, and nothing keeps an internal package of one version
// of a module working for another version of the other one. Tests and what only
// tests import may do so: nobody builds them outside this repository.
func noForeignInternals(sources []*source) (broken []string) {
	modules := make(map[string]string) // by folder
	for _, s := range sources {
		if path.Base(s.path) == "go.mod" {
			if m := moduleLine.FindSubmatch(s.text); m != nil {
				modules[path.Dir(s.path)] = string(m[1])
			}
		}
	}
	for _, s := range sources {
		if s.ast == nil || s.isTest() {
			continue
		}
		folder := path.Dir(s.path)
		for modules[folder] == "" && folder != "." {
			folder = path.Dir(folder)
		}
		own := modules[folder]
		if own == "" || unpublished[folder] != "" || strings.Contains(own+"/", "/internal/") || s.imports("testing") {
			continue
		}
		for _, i := range s.ast.Imports {
			imported := strings.Trim(i.Path.Value, `"`)
			owner := ""
			for _, m := range modules {
				if (imported == m || strings.HasPrefix(imported, m+"/")) && len(m) > len(owner) {
					owner = m
				}
			}
			if owner != "" && owner != own && strings.Contains(strings.TrimPrefix(imported, owner)+"/", "/internal/") {
				broken = append(broken, fmt.Sprintf("%s: module %s imports %s, which may change with each version of %s: export what it needs, or copy it", s.at(i), own, imported, owner))
			}
		}
	}
	return broken
}

func (s *source) imports(path string) bool {
	return slices.ContainsFunc(s.ast.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"`+path+`"` })
}

var testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")

// namedTests finds tests, named in documents, that nothing declares.
func namedTests(sources []*source) (broken []string) {
	declared := map[string]bool{}
	for _, s := range sources {
		if s.ast == nil || !s.isTest() {
			continue
		}
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				declared[f.Name.Name] = true
			}
		}
	}
	for _, s := range sources {
		if path.Ext(s.path) != ".md" {
			continue
		}
		for _, m := range testName.FindAllStringSubmatch(string(s.text), -1) {
			if !declared[m[1]] {
				broken = append(broken, fmt.Sprintf("%s names %s, which is nowhere", s.path, m[1]))
			}
		}
	}
	return broken
}

// docLink is a link to a name of this package, or of another one by its name.
var docLink = regexp.MustCompile(`\[\*?(?:([a-z][a-z0-9]*)\.)?([A-Z][A-Za-z0-9]*(?:\.[A-Z][A-Za-z0-9]*)?)\]`)

// docLinks checks links to names of this repository's packages. Of other packages it
// knows nothing.
func docLinks(sources []*source) (broken []string) {
	inFolder, inPackage := map[string]map[string]bool{}, map[string]map[string]bool{}
	add := func(to map[string]map[string]bool, of, name string) {
		if to[of] == nil {
			to[of] = map[string]bool{}
		}
		to[of][name] = true
	}
	for _, s := range sources {
		if s.ast == nil {
			continue
		}
		for _, name := range declaredIn(s.ast) {
			add(inFolder, path.Dir(s.path), name)
			add(inPackage, s.ast.Name.Name, name)
		}
	}
	for _, s := range sources {
		if s.ast == nil || s.isTest() {
			continue
		}
		for _, comment := range s.ast.Comments {
			for _, m := range docLink.FindAllStringSubmatch(comment.Text(), -1) {
				names := inFolder[path.Dir(s.path)]
				if m[1] != "" {
					names = inPackage[m[1]]
				}
				if !names[m[2]] && (m[1] == "" || names != nil && path.Base(imported(s.ast, m[1])) != m[1]) {
					broken = append(broken, fmt.Sprintf("%s: the link %s leads nowhere", s.at(comment), m[0]))
				}
			}
		}
	}
	return broken
}

// imported returns the path of a package from elsewhere that the file imports under
// that name, or "".
func imported(f *ast.File, name string) string {
	for _, i := range f.Imports {
		p := strings.Trim(i.Path.Value, `"`)
		if path.Base(p) == name && !strings.HasPrefix(p, "github.com/tokenkeep/") {
			return p
		}
	}
	return ""
}

// declaredIn returns the names that a file declares: T, and T.M for the methods and
// fields of T.
func declaredIn(f *ast.File) (names []string) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				name = typeName(d.Recv.List[0].Type) + "." + name
			}
			names = append(names, name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					for _, n := range spec.Names {
						names = append(names, n.Name)
					}
				case *ast.TypeSpec:
					names = append(names, spec.Name.Name)
					var fields *ast.FieldList
					switch t := spec.Type.(type) {
					case *ast.StructType:
						fields = t.Fields
					case *ast.InterfaceType:
						fields = t.Methods
					}
					if fields == nil {
						continue
					}
					for _, field := range fields.List {
						for _, n := range field.Names {
							names = append(names, spec.Name.Name+"."+n.Name)
						}
					}
				}
			}
		}
	}
	return names
}

func designedPackages(sources []*source) (broken []string) {
	var design string
	packages := map[string]bool{}
	for _, s := range sources {
		if s.path == "docs/design.md" {
			design = string(s.text)
		}
		if name, ok := strings.CutPrefix(path.Dir(s.path), "internal/"); ok && s.ast != nil && !strings.Contains(name, "/") {
			packages[name] = true
		}
	}
	for name := range packages {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(design) {
			broken = append(broken, "docs/design.md does not name internal/"+name)
		}
	}
	slices.Sort(broken)
	return broken
}

// partOf is a line of the list in docs/design.md: a package, and what it is for.
var partOf = regexp.MustCompile(`(?m)^ *([a-z][a-z/0-9]*) {2,}\S`)

// importsDownwards finds packages that import one above them in the list of
// docs/design.md. A package that the list leaves out may import everything.
func importsDownwards(sources []*source) (broken []string) {
	line := map[string]int{} // by folder
	module := ""
	for _, s := range sources {
		switch s.path {
		case "go.mod":
			if m := moduleLine.FindSubmatch(s.text); m != nil {
				module = string(m[1])
			}
		case "docs/design.md":
			_, list, _ := strings.Cut(string(s.text), "\n```\n")
			list, _, _ = strings.Cut(list, "```")
			for i, m := range partOf.FindAllStringSubmatch(list, -1) {
				line[m[1]] = i + 1
			}
		}
	}
	line["."] = line[path.Base(module)]
	for _, s := range sources {
		from := line[path.Dir(s.path)]
		if s.ast == nil || s.isTest() || from == 0 {
			continue
		}
		for _, i := range s.ast.Imports {
			imported := strings.Trim(i.Path.Value, `"`)
			folder, ok := strings.CutPrefix(imported, module+"/")
			if imported == module {
				folder, ok = ".", true
			}
			if to := line[folder]; ok && to != 0 && to < from {
				broken = append(broken, fmt.Sprintf("%s imports %s, which stands above it in docs/design.md", s.at(i), imported))
			}
		}
	}
	return broken
}

// Each law finds what it forbids, and lets pass what comes near it.
func TestLawsCatch(t *testing.T) {
	type files map[string]string
	for _, test := range []struct {
		name  string
		law   law
		files files
		want  int
	}{
		{"no package comment", onePackageComment, files{"a/a.go": "package a\n", "a/b.go": "package a\n"}, 1},
		{"two package comments", onePackageComment, files{"a/a.go": "// Package a is.\npackage a\n", "a/b.go": "// Package a is.\npackage a\n"}, 1},
		{"a comment of another package", onePackageComment, files{"a/a.go": "// Package b is.\npackage a\n"}, 1},
		{"one comment", onePackageComment, files{"a/a.go": "// Package a is.\npackage a\n", "a/b.go": "package a\n", "a/a_test.go": "package a\n"}, 0},
		{"a program", onePackageComment, files{"a/a.go": "// Runs.\npackage main\n"}, 0},

		{"bare function", exportedComments, files{"a.go": "package a\nfunc F() {}\n"}, 1},
		{"bare method", exportedComments, files{"a.go": "package a\n// T is.\ntype T[K any] int\nfunc (t *T[K]) M() {}\n"}, 1},
		{"bare type and values", exportedComments, files{"a.go": "package a\ntype T int\nconst A, B = 1, 2\nvar (\n\tX int\n\tY int // is why\n)\n"}, 4},
		{"all with comments", exportedComments, files{"a.go": "package a\n// Of both.\nconst (\n\tA = 1\n\tB = 2\n)\n// F does.\nfunc F() {}\nfunc g() {}\ntype t int\nfunc (t) M() {}\n// E is.\ntype E int\nfunc (E) Error() string { return \"\" }\n"}, 0},
		{"methods of an asserted interface", exportedComments, files{
			"p/p.go": "package p\n// I is.\ntype I interface{ J; M() }\n// J is.\ntype J interface{ N() }\n",
			"a/a.go": "package a\n// T is.\ntype T int\nvar _ p.I = (*T)(nil)\nfunc (t *T) M() {}\nfunc (t *T) N() {}\n// U is.\ntype U[K any] int\nvar (\n\t_ p.J = U[int](0)\n\t_ p.J = new(V)\n\t_ p.J = &W{}\n)\nfunc (U[K]) N() {}\n// V is.\ntype V int\nfunc (V) N() {}\n// W is.\ntype W struct{}\nfunc (W) N() {}\n"}, 0},
		{"other methods of an asserting type", exportedComments, files{
			"p/p.go": "package p\n// J is.\ntype J interface{ N() }\n",
			"a/a.go": "package a\n// T is.\ntype T int\nvar _ p.J = (*T)(nil)\nfunc (t *T) M() {}\nfunc (t *T) N() {}\n// U is.\ntype U int\nfunc (U) N() {}\n"}, 2},
		{"a type of the same name elsewhere", exportedComments, files{
			"p/p.go": "package p\n// J is.\ntype J interface{ N() }\n// T is.\ntype T int\nvar _ J = T(0)\nfunc (T) N() {}\n",
			"a/a.go": "package a\n// T is.\ntype T int\nfunc (t *T) N() {}\n"}, 1},
		{"a test", exportedComments, files{"a_test.go": "package a\nfunc TestF() {}\n"}, 0},

		{"a test that sleeps", noSleep, files{"a_test.go": "package a\nfunc f() { time.Sleep(1) }\n"}, 1},
		{"code that sleeps", noSleep, files{"a.go": "package a\nfunc f() { time.Sleep(1) }\n"}, 0},

		{"a skip", skipsSayWhy, files{"a_test.go": "package a\nfunc f(t *testing.T) { t.Skip(\"no keyring\") }\n"}, 1},
		{"a skip without a reason", skipsSayWhy, files{"internal/test/env/env.go": "package a\nimport \"testing\"\nfunc f(t *testing.T) { t.SkipNow() }\n"}, 1},
		{"a skip in a helper", skipsSayWhy, files{"a.go": "package a\nimport \"testing\"\nfunc f(t testing.TB) { t.Skipf(\"no %s\", \"keyring\") }\n"}, 1},
		{"a skip for the platform", skipsSayWhy, files{"a_test.go": "package a\nfunc f(t *testing.T) { if runtime.GOOS == \"windows\" { t.Skip(\"no modes\") } }\n"}, 0},
		{"a skip for the platform without a reason", skipsSayWhy, files{"a_test.go": "package a\nfunc f(t *testing.T) { if runtime.GOOS == \"windows\" { t.SkipNow() } }\n"}, 1},
		{"a skip beside the platform", skipsSayWhy, files{"a_test.go": "package a\nfunc f(t *testing.T) { if runtime.GOOS == \"linux\" && none { t.Skip(\"no keyring\") } }\n"}, 1},
		{"no test's skip", skipsSayWhy, files{"a.go": "package a\nfunc f() { s.Skip(1) }\n"}, 0},

		{"another module's internals", noForeignInternals, files{
			"go.mod": "module m\n", "web/go.mod": "module m/web\n",
			"web/a/a.go": "package a\nimport _ \"m/internal/x\"\n", "web/b/b.go": "package b\nimport _ \"m/a/internal\"\n"}, 2},
		{"the own internals, and what tests import", noForeignInternals, files{
			"go.mod": "module m\n", "web/go.mod": "module m/web\n", "bench/go.mod": "module m/bench\n",
			"a/a.go": "package a\nimport _ \"m/internal/x\"\n", "web/a/a.go": "package a\nimport (\n_ \"m/web/internal/x\"\n_ \"m/internals\"\n)\n",
			"web/a/a_test.go": "package a\nimport _ \"m/internal/x\"\n", "web/internal/t/t.go": "package t\nimport (\n_ \"m/internal/x\"\n_ \"testing\"\n)\n",
			"bench/b.go": "package b\nimport _ \"m/internal/x\"\n"}, 0},

		{"a test that is nowhere", namedTests, files{"a.md": "`TestA` and `FuzzB`\n", "a.go": "package a\nfunc TestA() {}\n"}, 2},
		{"tests that are there", namedTests, files{"a.md": "`TestA`, `Test`, `tests`\n", "a_test.go": "package a\nfunc TestA() {}\n"}, 0},

		{"links that lead nowhere", docLinks, files{"a/a.go": "package a\n// See [F], [T.M], [*U] and [b.F].\ntype T int\n", "b/b.go": "package b\nfunc G() {}\n"}, 4},
		{"links that lead somewhere", docLinks, files{"a/a.go": "package a\n// See [T], [*T], [T.M], [S.F], [b.G], [fs.File] and [1].\ntype T int\nfunc (*T) M() {}\ntype S struct{ F int }\n", "b/b.go": "package b\nfunc G() {}\n"}, 0},
		{"a package that the design leaves out", designedPackages, files{"docs/design.md": "internal/a\n", "internal/a/a.go": "package a\n", "internal/b/b.go": "package b\n"}, 1},

		{"a wrapper without a test", wrappersAreChecked, files{
			"a/a.go": "package a\nfunc F(p persistence.Persistence) persistence.Versioned { return nil }\n",
			"b/b.go": "package b\ntype K int\nfunc (k *K) G(n int, p persistence.Versioned) (persistence.Persistence, error) { return nil, nil }\n",
			// of another package, and not of RunWrapper
			"b/b_test.go": "package b\nfunc TestF(t *testing.T) {\npersistencetest.RunWrapper(t, func(p persistence.Persistence) persistence.Persistence { return a.F(p) })\npersistencetest.Run(t, k.G)\n}\n"}, 2},
		{"a wrapper with a test", wrappersAreChecked, files{
			"a/a.go":      "package a\nfunc F(p persistence.Persistence) persistence.Versioned { return nil }\nfunc g(p persistence.Persistence) persistence.Versioned { return nil }\nfunc H(p persistence.Persistence) error { return nil }\n",
			"a/a_test.go": "package a_test\nfunc TestF(t *testing.T) {\npersistencetest.RunWrapper(t, func(p persistence.Persistence) persistence.Persistence { return a.F(p) })\n}\n"}, 0},

		{"an ability that the suite does not know, and one that nobody asks for", abilitiesAreKnown, files{
			"persistence/p.go":                     "package persistence\ntype A interface{ M() }\ntype B interface{ N() }\ntype C interface{ O() }\nfunc f(p any) { _, _ = p.(A); _, _ = p.(B); _, _ = p.(*int) }\n",
			"persistence/persistencetest/suite.go": "package persistencetest\nfunc abilitiesOf(p any) { _, _ = p.(persistence.A); _, _ = p.(persistence.C) }\nfunc other(p any) { _ = p.(persistence.B) }\n"}, 2},
		{"abilities that the suite knows", abilitiesAreKnown, files{
			"persistence/p.go":                     "package persistence\ntype A interface{ M() }\nfunc f(p any) { _, _ = p.(A) }\n",
			"persistence/persistencetest/suite.go": "package persistencetest\nfunc abilitiesOf(p any) { _, _ = p.(persistence.A) }\n"}, 0},

		{"code that is nowhere compiled", readmeCompiles, files{
			"README.md": "```go\na()\n```\n\n```go\nb()\n```\n\n```\nsh\n```\n", "readme_test.go": "package a\nfunc f() {\n\taa()\n\tb()\n}\n", "other_test.go": "package a\nfunc f() {\n\ta()\n}\n"}, 1},
		{"an import that points up", importsDownwards, files{"go.mod": "module m/top\n", "docs/design.md": "\n```\ntop         all\n  internal/a  one\n  internal/b  two\n```\n",
			"a.go": "package top\nimport _ \"m/top/internal/b\"\n", "internal/a/a.go": "package a\nimport _ \"m/top\"\n", "internal/b/b.go": "package b\nimport _ \"m/top/internal/a\"\n"}, 2},
		{"imports that point down", importsDownwards, files{"go.mod": "module m/top\n", "docs/design.md": "\n```\ntop         all\n  internal/a  one\n  internal/b  two\n```\n",
			"a.go": "package top\nimport _ \"m/top/internal/b\"\n", "internal/a/a.go": "package a\nimport (\n\t_ \"m/top/internal/b\"\n\t_ \"m/top/internal/c\"\n)\n", "internal/a/a_test.go": "package a\nimport _ \"m/top\"\n",
			"internal/c/c.go": "package c\nimport _ \"m/top\"\n"}, 0},

		{"links of documents that lead nowhere", documentLinks, files{
			"a.md": "# One\n[x](b.md) [x](#two) [x](d/c.md#none) ![x](p.svg) [x](d/c.md#a-b-c)\n", "d/c.md": "## A `b`, c!\n[x](a.md)\n"}, 5},
		{"links of documents that lead somewhere", documentLinks, files{
			"a.md": "# One\n[x](d) [x](#one) [x](d/c.md#a-b-c) [x](https://example.org/x) `[x](no)`\n```\n[x](no)\n```\n", "d/c.md": "## A `b`, c!\n[x](../a.md)\n"}, 0},

		{"local paths", noLocalPaths, files{"a.md": "see /root" + "/x\n`/home" + "/me/x`\n"}, 2},
		{"other paths", noLocalPaths, files{"a.md": "https://example.org/root" + "/x and ~/x and /etc/passwd\n"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var sources []*source
			for path, text := range test.files {
				sources = append(sources, newSource(t, path, []byte(text)))
			}
			if broken := test.law(sources); len(broken) != test.want {
				t.Errorf("found %q, want %d", broken, test.want)
			}
		})
	}
}

// A file that no longer needs its exception must lose it.
func TestExceptionsAreNeeded(t *testing.T) {
	sources := repository(t)
	for name, exceptions := range map[string]map[string]string{"sleeps": sleeps, "skips": skips} {
		for path := range exceptions {
			i := slices.IndexFunc(sources, func(s *source) bool { return s.path == path })
			if i < 0 {
				t.Errorf("%s: there is no %s", name, path)
				continue
			}
			needed := false
			sources[i].calls(func(_ *ast.CallExpr, on, called string) {
				needed = needed || name == "sleeps" && on == "time" && called == "Sleep" || name == "skips" && strings.HasPrefix(called, "Skip")
			})
			if !needed {
				t.Errorf("%s: %s needs no exception any more", name, path)
			}
		}
	}
}
