package encrypted

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	vectors "github.com/tokenkeep/tokenkeep/testdata/encrypted"
)

type vector struct {
	title string
	want  map[string]string // the lines of its header
	file  []byte
}

func (v *vector) source() KeySource {
	key, err := hex.DecodeString(v.want["key"])
	if err != nil {
		panic(err)
	}
	switch v.want["source"] {
	case "raw":
		return Raw(key)
	case "passphrase":
		return Passphrase(func(context.Context) ([]byte, error) { return []byte(v.want["passphrase"]), nil }, nil)
	case "dpapi": // as if Windows decrypted any blob to the vector's key
		return fakeDPAPI(nil, func([]byte, []byte) ([]byte, error) { return key, nil })
	default:
		return fixed{v.want["source"], key}
	}
}

// allVectors returns the embedded vectors. There must be as many as there are
// known to be, or more: a test over none passes.
func allVectors(t testing.TB) (all []vector) {
	t.Helper()
	names, err := fs.Glob(vectors.Files, "*.vec")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(names), 120)
	for _, name := range names {
		b, err := vectors.Files.ReadFile(name)
		require.NoError(t, err)
		text, file, ok := bytes.Cut(b, []byte("\n\n"))
		require.True(t, ok, name)
		v := vector{title: strings.TrimSuffix(name, ".vec"), want: map[string]string{}, file: file}
		for line := range strings.SplitSeq(string(text), "\n") {
			word, value, ok := strings.Cut(line, ": ")
			require.True(t, ok, "%s: %q", name, line)
			v.want[word] = value
		}
		all = append(all, v)
	}
	return all
}

func TestVectors(t *testing.T) {
	seen := map[string]int{}
	for _, v := range allVectors(t) {
		seen[v.want["expect"]]++
		t.Run(v.title, func(t *testing.T) {
			path := tempPath(t)
			require.NoError(t, os.WriteFile(path, v.file, 0o600))
			f, err := New(path, v.source(), &Options{Name: v.want["name"]})
			require.NoError(t, err)

			data, err := f.Load(ctx)
			require.Equal(t, v.want["expect"], classOf(err), "%s: %v", v.want["comment"], err)
			if err == nil {
				sum := sha256.Sum256(data)
				require.Equal(t, v.want["sha256"], hex.EncodeToString(sum[:]))
			} else {
				requireError(t, v.want["expect"], err)
			}

			// The key opens what the header says, or the file is not replaced.
			proved := f.Check(ctx)
			saved := f.Save(ctx, []byte("new"))
			require.Equal(t, classOf(proved), classOf(saved))
			if saved != nil {
				require.Equal(t, v.want["expect"], classOf(saved))
				require.Equal(t, v.file, readFile(t, path))
			}

			h, size, err := parse(v.file)
			if err != nil {
				require.NotEqual(t, "ok", v.want["expect"])
				return
			}
			require.Equal(t, string(v.file[:size]), string(h.format()), "what parses must be written the same")
		})
	}
	for _, class := range []string{"ok", "corrupt", "wrong-key", "unsupported-version"} {
		require.NotZero(t, seen[class], class)
	}
}

func TestVectorsAreWhatTheGeneratorMakes(t *testing.T) {
	made := vectors.Generate()
	names, err := fs.Glob(vectors.Files, "*.vec")
	require.NoError(t, err)
	require.Equal(t, slices.Sorted(maps.Keys(made)), names, "run: go run ./testdata/encrypted/generate")
	for _, name := range names {
		b, err := vectors.Files.ReadFile(name)
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, made[name]), "%s; run: go run ./testdata/encrypted/generate", name)
	}
}

// The reader in Python was written from FORMAT.md alone.
func TestVectorsInAnotherLanguage(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the vectors are the same everywhere, and Python is asked on the other systems")
	}
	var python string
	for _, candidate := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(candidate, "-c", "import cryptography.hazmat.primitives.ciphers.aead").Run() == nil {
			python = candidate
			break
		}
	}
	if python == "" {
		const missing = "no python3 that has the module cryptography (Debian: python3-cryptography)"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	script := filepath.Join("..", "testdata", "encrypted", "check.py")
	out, err := exec.Command(python, script).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Regexp(t, `^checked 1\d\d vectors\n$`, string(out))
}

// The samples in FORMAT.md are parts of the vectors.
func TestFormatShowsRealSamples(t *testing.T) {
	spec := string(readFile(t, "FORMAT.md"))
	var headers []string
	for _, v := range allVectors(t) {
		if h, size, err := parse(v.file); err == nil && v.want["expect"] == "ok" {
			_ = h
			headers = append(headers, string(v.file[:size]))
		}
	}
	samples := regexp.MustCompile(`(?m)^    ((?:tokenkeep-encrypted/1|key [a-z]+|salt|commit|sum) [A-Za-z0-9_-]{22,}.*|tokenkeep-encrypted/1)$`).FindAllStringSubmatch(spec, -1)
	require.GreaterOrEqual(t, len(samples), 11)
	for _, s := range samples {
		require.True(t, slices.ContainsFunc(headers, func(h string) bool { return strings.Contains(h, s[1]+"\n") }), "%q is in no vector", s[1])
	}
	for _, h := range headers {
		if strings.Contains(spec, strings.ReplaceAll("    "+strings.TrimSuffix(h, "\n\n"), "\n", "\n    ")) {
			return
		}
	}
	t.Fatal("no vector has the sample header")
}
