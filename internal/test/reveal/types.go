package reveal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ExportedTypes returns the exported types, as "package.Type", of all packages
// that others can import, of the module in the folder root. Interfaces are left
// out: they hold nothing.
func ExportedTypes(root string) (types []string, err error) {
	err = fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch {
			case p == ".":
				return nil
			case slices.Contains([]string{"internal", "testdata", ".git"}, d.Name()):
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(root, p, "go.mod")); err == nil { // another module
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, p), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if file.Name.Name == "main" {
			return nil
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				s := spec.(*ast.TypeSpec)
				if _, ok := s.Type.(*ast.InterfaceType); ok || !s.Name.IsExported() {
					continue
				}
				types = append(types, strings.TrimPrefix(path.Dir(p)+"/", "./")+file.Name.Name+"."+s.Name.Name)
			}
		}
		return nil
	})
	for i, t := range types { // a package is named after its folder, but for the module's own
		dir, name := path.Split(t)
		pkg, typ, _ := strings.Cut(name, ".")
		if path.Base(dir) == pkg {
			t = path.Clean(dir) + "." + typ
		}
		types[i] = t
	}
	slices.Sort(types)
	return slices.Compact(types), err
}
