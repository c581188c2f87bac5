package layout_test

import (
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/layout"
)

// What is made is recognised, and as the right thing.
func TestMadeIsRecognised(t *testing.T) {
	for _, name := range []string{"app", "a", "0", "contoso-cli", "a.enc", "a.lock", "a.plaintext.json", "a.b_c-d", strings.Repeat("a", 64)} {
		require.True(t, layout.ValidName(name), name)
		c := layout.Cache{Dir: filepath.Join("some", "folder"), Name: name}
		require.Equal(t, layout.File{Cache: name, Kind: layout.Encrypted}, layout.Parse(filepath.Base(c.Encrypted())))
		require.Equal(t, layout.File{Cache: name, Kind: layout.PlaintextFile, OfPlaintext: true}, layout.Parse(filepath.Base(c.Plaintext())))
		require.Equal(t, layout.File{Cache: name, Kind: layout.Lock}, layout.Parse(filepath.Base(c.Lock())))
		require.Equal(t, layout.File{Cache: name, Kind: layout.Lock, Queue: true}, layout.Parse(filepath.Base(layout.QueueOf(c.Lock()))))
		require.Equal(t, layout.File{Cache: name, Kind: layout.Lock}, layout.Parse(filepath.Base(layout.NamedLock(c.Lock(), "any name"))))
		require.Equal(t, layout.File{Cache: name, Kind: layout.Revision}, layout.Parse(filepath.Base(layout.RevisionOf(c.Lock(), "any item"))))
		for _, data := range []string{c.Encrypted(), c.Plaintext()} {
			of, ok := layout.Of(data)
			require.True(t, ok)
			require.Equal(t, c, of)
			require.Equal(t, c.Lock(), layout.LockOf(data))
			plain := data == c.Plaintext()
			base := filepath.Base(data)
			for _, n := range []int{0, 9, 999} {
				temp := layout.Temp(base, n)
				require.True(t, layout.IsTemp(temp, base))
				require.Equal(t, layout.File{Cache: name, Kind: layout.Temporary, OfPlaintext: plain}, layout.Parse(temp))
				require.False(t, layout.IsData(temp))
			}
			for _, number := range []int{0, 2, 17} {
				aside := layout.NewAsideName(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
				aside.Number = number
				got, ok := layout.ParseAside(base+aside.Suffix(), base)
				require.True(t, ok)
				require.Equal(t, aside, got)
				require.Equal(t, layout.File{Cache: name, Kind: layout.Aside, OfPlaintext: plain}, layout.Parse(base+aside.Suffix()))
			}
		}
		if !strings.Contains(name, ".lock") {
			require.True(t, layout.IsData(filepath.Base(c.Encrypted())))
		}
		require.False(t, layout.IsData(filepath.Base(c.Lock())))
	}
}

func TestNamesAreFixed(t *testing.T) {
	c := layout.Cache{Dir: "d", Name: "app"}
	for want, got := range map[string]string{
		"app.enc":                       c.Encrypted(),
		"app.plaintext.json":            c.Plaintext(),
		"app.lock":                      c.Lock(),
		"app.lock.turn":                 layout.QueueOf(c.Lock()),
		"app.lock.2cf24dba5fb0a30e":     layout.NamedLock(c.Lock(), "hello"),
		"app.lock.rev-2cf24dba5fb0a30e": layout.RevisionOf(c.Lock(), "hello"),
		"cache.json.lock":               layout.LockOf(filepath.Join("d", "cache.json")),
		"App.enc.lock":                  layout.LockOf(filepath.Join("d", "App.enc")),
	} {
		require.Equal(t, filepath.Join("d", want), got)
	}
	require.Equal(t, ".app.enc.0.tmp", layout.Temp("app.enc", 0))
	require.Equal(t, "tokenkeep/app", layout.KeyringService("app"))
	require.Equal(t, ".damaged-20260102T030405Z-2", layout.AsideName{Time: "20260102T030405Z", Number: 2}.Suffix())
}

func TestWhatIsNoCachesFile(t *testing.T) {
	for _, name := range []string{
		"", "app", ".enc", "App.enc", "-a.enc", "app.json", "app.enc~", "app.enc.bak", "app.locks", "app.lock.turns",
		"app.lock.2cf24dba5fb0a30", "app.lock.rev-", "app.enc.damaged-", "app.enc.damaged-by-another",
		"app.enc.damaged-20260102T030405Z-0", "app.enc.damaged-20260102T030405Z-02", "app.enc.damaged-20261302T030405Z",
		".app.enc.tmp", ".app.enc.01.tmp", ".app.enc.-1.tmp", ".app.enc.+1.tmp", ".app.enc.x.tmp", ".app.enc..tmp",
		strings.Repeat("a", 65) + ".enc", "app.enc\n", "a/b.enc",
	} {
		require.Equal(t, layout.File{}, layout.Parse(name), "%q", name)
		_, ok := layout.Of(filepath.Join("d", name))
		require.False(t, ok && !strings.Contains(name, "/"), "%q", name)
	}
	for _, name := range []string{"", "a/b", `a\b`, "..", "App", strings.Repeat("a", 65), "con", "nul.x", "com1", "a b", "é", "a\n"} {
		require.False(t, layout.ValidName(name), "%q", name)
	}
}

// Names are recognised as these expressions say. A program that starts need not
// compile them.
func TestNamesAreThoseOfTheExpressions(t *testing.T) {
	const name, hash, data = `[a-z0-9][a-z0-9._-]{0,63}`, `[0-9a-f]{16}`, `\.enc|\.plaintext\.json`
	var (
		cacheName    = regexp.MustCompile(`^` + name + `$`)
		deviceName   = regexp.MustCompile(`^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)
		dataFile     = regexp.MustCompile(`^(` + name + `)(` + data + `)$`)
		lockFile     = regexp.MustCompile(`^(` + name + `)\.lock(|\.turn|\.` + hash + `)$`)
		revisionFile = regexp.MustCompile(`^(` + name + `)\.lock\.rev-` + hash + `$`)
		asideFile    = regexp.MustCompile(`^(` + name + `)(` + data + `)\.damaged-[0-9]{8}T[0-9]{6}Z(--?[1-9][0-9]*)?$`)
		tempFile     = regexp.MustCompile(`^\.(` + name + `)(` + data + `)\.(0|[1-9][0-9]*)\.tmp$`)
	)
	parse := func(s string) layout.File {
		const plaintext = ".plaintext.json"
		if m := tempFile.FindStringSubmatch(s); m != nil {
			return layout.File{Cache: m[1], Kind: layout.Temporary, OfPlaintext: m[2] == plaintext}
		}
		if m := asideFile.FindStringSubmatch(s); m != nil {
			return layout.File{Cache: m[1], Kind: layout.Aside, OfPlaintext: m[2] == plaintext}
		}
		if m := dataFile.FindStringSubmatch(s); m != nil {
			kind := map[bool]layout.Kind{false: layout.Encrypted, true: layout.PlaintextFile}
			return layout.File{Cache: m[1], Kind: kind[m[2] == plaintext], OfPlaintext: m[2] == plaintext}
		}
		if m := revisionFile.FindStringSubmatch(s); m != nil {
			return layout.File{Cache: m[1], Kind: layout.Revision}
		}
		if m := lockFile.FindStringSubmatch(s); m != nil {
			return layout.File{Cache: m[1], Kind: layout.Lock, Queue: m[2] == ".turn"}
		}
		return layout.File{}
	}

	begins := []string{"", ".", "a", ".a", ".a.enc", ".app.plaintext.json", "app", "con", "lpt1", "com", "9", "_", "-", "A", "é", strings.Repeat("b", 62)}
	parts := []string{
		"a", "1", ".", "-", "B", "\n", ".enc", ".plaintext.json", ".lock", ".turn", ".rev-", ".lock.rev-",
		"0123456789abcdef", ".0123456789abcdef", "0123456789ABCDEF",
		".damaged-20260102T030405Z", ".damaged-", "-2", ".0", ".17.tmp", ".01.tmp", ".tmp",
	}
	random := rand.New(rand.NewPCG(1, 2))
	seen := map[layout.Kind]int{}
	for range 100_000 {
		s := begins[random.IntN(len(begins))]
		for range random.IntN(5) {
			s += parts[random.IntN(len(parts))]
		}
		if valid := cacheName.MatchString(s) && !deviceName.MatchString(s); valid != layout.ValidName(s) {
			t.Fatalf("%q is a name: %v", s, !valid)
		}
		got := layout.Parse(s)
		if want := parse(s); want != got {
			t.Fatalf("%q is %v, not %v", s, want, got)
		}
		seen[got.Kind]++
	}
	for kind := layout.Unknown; kind <= layout.Temporary; kind++ {
		require.Greater(t, seen[kind], 10, kind)
	}
}
