// Command generate writes the test vectors into the folder testdata/encrypted.
// It is run in the module's root.
package main

import (
	"log"
	"os"
	"path/filepath"

	vectors "github.com/tokenkeep/tokenkeep/testdata/encrypted"
)

func main() {
	const dir = "testdata/encrypted"
	if _, err := os.Stat(filepath.Join(dir, "generate.go")); err != nil {
		log.Fatal("run this in the module's root: ", err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.vec"))
	if err != nil {
		log.Fatal(err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			log.Fatal(err)
		}
	}
	for name, content := range vectors.Generate() {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
