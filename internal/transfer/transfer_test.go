package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/transfer"
)

var (
	errNotFound = errors.New("not found")
	errConflict = errors.New("conflict")
	errBroken   = errors.New("broken")
)

// memory is a store in memory. before is called before each call, with its name.
type memory struct {
	data   []byte
	rev    int // 0 for nothing
	before func(call string) error
	back   []byte // what a load returns in the place of data, if it is not nil
}

func newMemory(data string) *memory {
	m := &memory{}
	if data != "" {
		m.data, m.rev = []byte(data), 1
	}
	return m
}

func (m *memory) revision() string {
	if m.data == nil {
		return ""
	}
	return fmt.Sprint(m.rev)
}

func (m *memory) call(name string) error {
	if m.before == nil {
		return nil
	}
	return m.before(name)
}

func (m *memory) LoadRevision(context.Context) ([]byte, string, error) {
	if err := m.call("load"); err != nil {
		return nil, "", err
	}
	if m.data == nil {
		return nil, "", errNotFound
	}
	if m.back != nil {
		return m.back, m.revision(), nil
	}
	return m.data, m.revision(), nil
}

func (m *memory) SaveIf(_ context.Context, data []byte, rev string) (string, error) {
	if err := m.call("save"); err != nil {
		return "", err
	}
	if rev != m.revision() {
		return "", errConflict
	}
	m.set(data)
	return m.revision(), nil
}

func (m *memory) set(data []byte) { m.data, m.rev = data, m.rev+1 }

func (m *memory) DeleteIf(_ context.Context, rev string) error {
	if err := m.call("delete"); err != nil {
		return err
	}
	if rev != m.revision() {
		return errConflict
	}
	m.data = nil
	return nil
}

func join(h transfer.Held) (transfer.Next, error) {
	if h.To == nil {
		return transfer.Next{Data: h.From, Changed: true}, nil
	}
	return transfer.Next{Data: append(append([]byte{}, h.To...), h.From...), Changed: true}, nil
}

func newTransfer(from, to *memory) *transfer.Transfer {
	return &transfer.Transfer{From: from, To: to, NotFound: errNotFound, Conflict: errConflict, Combine: join}
}

func TestTry(t *testing.T) {
	for name, c := range map[string]struct{ from, to, want string }{
		"nothing":      {"", "t", "t"},
		"to nothing":   {"f", "", "f"},
		"to something": {"f", "t", "tf"},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := newMemory(c.from), newMemory(c.to)
			recorded := ""
			x := newTransfer(from, to)
			x.BeforeDelete = func(_ context.Context, rev string) error {
				require.Equal(t, c.want, string(to.data), "the copy comes first")
				require.NotNil(t, from.data)
				recorded = rev
				return nil
			}
			done, err := x.Try(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.want, string(to.data))
			require.Nil(t, from.data)
			require.Equal(t, recorded, done.FromRev)
			require.Equal(t, c.from == "", recorded == "")
			if c.from != "" {
				require.Equal(t, to.revision(), done.ToRev)
				require.Equal(t, c.want, string(done.Data))
			}
		})
	}
}

// Whatever fails, nothing is deleted from From before To has it.
func TestFailuresDeleteNothing(t *testing.T) {
	fail := func(m *memory, at string, nth int) {
		m.before = func(call string) error {
			if call == at {
				if nth--; nth == 0 {
					return errBroken
				}
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		harm func(from, to *memory, x *transfer.Transfer)
		as   any
	}{
		"load from": {func(from, _ *memory, _ *transfer.Transfer) { fail(from, "load", 1) }, new(*transfer.SourceError)},
		"load to":   {func(_, to *memory, _ *transfer.Transfer) { fail(to, "load", 1) }, nil},
		"save":      {func(_, to *memory, _ *transfer.Transfer) { fail(to, "save", 1) }, nil},
		"read back": {func(_, to *memory, _ *transfer.Transfer) { fail(to, "load", 2) }, new(*transfer.ReadBackError)},
		"delete":    {func(from, _ *memory, _ *transfer.Transfer) { fail(from, "delete", 1) }, nil},
		"combine": {func(_, _ *memory, x *transfer.Transfer) {
			x.Combine = func(transfer.Held) (transfer.Next, error) { return transfer.Next{}, errBroken }
		}, nil},
		"before delete": {func(_, _ *memory, x *transfer.Transfer) {
			x.BeforeDelete = func(context.Context, string) error { return errBroken }
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := newMemory("f"), newMemory("t")
			x := newTransfer(from, to)
			c.harm(from, to, x)
			_, err := x.Try(t.Context())
			require.ErrorIs(t, err, errBroken)
			require.Equal(t, "f", string(from.data))
			require.Contains(t, string(to.data), "t")
			if c.as != nil {
				require.ErrorAs(t, err, c.as)
			}
		})
	}
	from, to := newMemory("f"), newMemory("")
	to.back = []byte("other")
	_, err := newTransfer(from, to).Try(t.Context())
	require.ErrorAs(t, err, new(*transfer.ReadBackError))
	require.NotContains(t, err.Error(), "other\"")
	require.Equal(t, "f", string(from.data))
}

func TestKeep(t *testing.T) {
	from, to := newMemory("f"), newMemory("t")
	x := newTransfer(from, to)
	x.Combine = func(transfer.Held) (transfer.Next, error) {
		return transfer.Next{Data: []byte("n"), Changed: true, Keep: true}, nil
	}
	x.BeforeDelete = func(context.Context, string) error { t.Error("nothing is deleted"); return nil }
	_, err := x.Try(t.Context())
	require.NoError(t, err)
	require.Equal(t, "f", string(from.data))
	require.Equal(t, "n", string(to.data))
}

// After a conflict the next try knows what was copied, so that it can tell what
// has changed since. Before anything was copied it knows of nothing.
func TestConflictsKeepTheBase(t *testing.T) {
	from, to := newMemory("f"), newMemory("")
	x := newTransfer(from, to)
	var held []transfer.Held
	x.Combine = func(h transfer.Held) (transfer.Next, error) { held = append(held, h); return join(h) }
	to.before = func(call string) error {
		if call == "save" && len(held) == 1 {
			to.set([]byte("t"))
		}
		return nil
	}
	_, err := x.Try(t.Context())
	require.ErrorIs(t, err, errConflict)
	from.before = func(call string) error {
		if call == "delete" && len(held) == 2 {
			from.set([]byte("g"))
		}
		return nil
	}
	_, err = x.Try(t.Context())
	require.ErrorIs(t, err, errConflict)
	_, err = x.Try(t.Context())
	require.NoError(t, err)
	require.Len(t, held, 3)
	require.Nil(t, held[1].Copied)
	require.Equal(t, "f", string(held[2].Copied))
	require.Equal(t, "tfg", string(to.data))
}

func TestMalformed(t *testing.T) {
	for data, want := range map[string]bool{
		"": false, " ": false, "{}": false, `{"a":1}`: false, "xyz": false, "[1": false,
		"{": true, `{"a"`: true, ` {"a":{"b":}}`: true,
		"\n": false, "\x00\x00\x00": false, "null": false, " null\n": false, "\ufeff": false, "\ufeff{}": false, "{}\x00\x00": false,
		"\x00\x00a\":{}}": false, "\x00\x00{": false, "\ufeff{\"a": true, "\ufeffx": true, "{\"a\x00\x00\x00": true,
	} {
		require.Equal(t, want, transfer.Malformed([]byte(data)), "%q", data)
	}
}

func TestAdd(t *testing.T) {
	account := func(id string) string { return `"` + id + `":{"home_account_id":"` + id + `","environment":"login"}` }
	for name, c := range map[string]struct {
		from, to, want string
		added          transfer.Added
	}{
		"nothing to add":           {`{}`, `{"Account":{` + account("a") + `}}`, `{"Account":{` + account("a") + `}}`, transfer.Added{}},
		"to an empty cache":        {`{"Account":{` + account("a") + `}}`, `{}`, `{}`, transfer.Added{Left: 1}},
		"to no bytes":              {`{"Account":{` + account("a") + `}}`, ``, ``, transfer.Added{Left: 1}},
		"the same key":             {`{"RefreshToken":{"k":{"secret":"2"}}}`, `{"RefreshToken":{"k":{"secret":"1"}}}`, `{"RefreshToken":{"k":{"secret":"1"}}}`, transfer.Added{}},
		"the key in capitals":      {`{"RefreshToken":{"K":{"secret":"2"}}}`, `{"RefreshToken":{"k":{"secret":"1"}}}`, `{"RefreshToken":{"k":{"secret":"1"}}}`, transfer.Added{}},
		"behind a byte order mark": {"\ufeff" + `{"RefreshToken":{"l":{"secret":"2"}}}` + "\r\n", `{}`, `{"RefreshToken":{"l":{"secret":"2"}}}`, transfer.Added{Entries: 1}},
		"null":                     {"null", `{"Account":{` + account("a") + `}}`, `{"Account":{` + account("a") + `}}`, transfer.Added{}},
		"an entry of nobody":       {`{"RefreshToken":{"l":{"secret":"2"}}}`, `{"RefreshToken":{"k":{"secret":"1"}}}`, `{"RefreshToken":{"k":{"secret":"1"},"l":{"secret":"2"}}}`, transfer.Added{Entries: 1}},
		"an entry of an account that is there": {
			`{"IdToken":{"i":{"home_account_id":"A","environment":"LOGIN"}}}`, `{"Account":{` + account("a") + `}}`,
			`{"Account":{` + account("a") + `},"IdToken":{"i":{"home_account_id":"A","environment":"LOGIN"}}}`, transfer.Added{Entries: 1}},
		"of one that only left a refresh token": {
			`{"Account":{` + account("a") + `}}`, `{"RefreshToken":{` + account("a") + `}}`, `{"RefreshToken":{` + account("a") + `}}`, transfer.Added{Left: 1}},
		"of one in another environment": {
			`{"IdToken":{"i":{"home_account_id":"a","environment":"other"}}}`, `{"Account":{` + account("a") + `}}`, `{"Account":{` + account("a") + `}}`, transfer.Added{Left: 1}},
		"an account by a field in capitals": {
			`{"RefreshToken":{"k":{"home_account_id":"a","HOME_ACCOUNT_ID":""},"l":{"home_account_id":7}}}`, `{}`, `{}`, transfer.Added{Left: 2}},
		"sections that are not MSAL's": {`{"Mine":{"k":{}},"refreshtoken":{"k":{}}}`, `{}`, `{}`, transfer.Added{Left: 2}},
		"what is no entry": {`{"RefreshToken":{"k":null,"l":[]},"IdToken":7}`, `{}`, `{}`,
			transfer.Added{Refused: []tokencache.Refused{{Section: "RefreshToken", Key: "k"}, {Section: "RefreshToken", Key: "l"}, {Section: "IdToken", Whole: true}}}},
		"empty sections":                    {`{"RefreshToken":null,"Mine":null}`, `{}`, `{}`, transfer.Added{}},
		"what is no entry, of others":       {`{"Mine":{"k":null},"Others":7}`, `{}`, `{}`, transfer.Added{Left: 2}},
		"a section that is no object there": {`{"RefreshToken":{"k":{}}}`, `{"RefreshToken":7}`, `{"RefreshToken":7}`, transfer.Added{Left: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			got, changed, added, err := transfer.Add([]byte(c.from), []byte(c.to))
			require.NoError(t, err)
			require.Equal(t, c.added, added)
			require.Equal(t, c.added.Entries > 0, changed)
			if c.want == "" {
				require.Empty(t, got)
				return
			}
			require.JSONEq(t, c.want, string(got))
		})
	}
	for _, bad := range []string{"x", "{", "[]", `{"RefreshToken":"s3cret`} {
		_, _, _, err := transfer.Add([]byte(bad), []byte("{}"))
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "s3cret")
		_, _, _, err = transfer.Add([]byte("{}"), []byte(bad))
		require.Error(t, err, bad)
	}
}

// An entry that MSAL cannot take is neither merged nor added, and takes nothing else
// with it: not the entry under its key, and not its account.
func TestWhatMSALRefuses(t *testing.T) {
	const (
		bad  = `{"Account":{"a":{"home_account_id":"ann","environment":"login","name":7}},"RefreshToken":{"k":{"home_account_id":"ann","environment":"login","secret":5}}}`
		good = `{"Account":{"a":{"home_account_id":"ann","environment":"login"}},"RefreshToken":{"k":{"home_account_id":"ann","environment":"login","secret":"s"}}}`
	)
	for _, base := range [][]byte{nil, []byte(bad), []byte(good)} {
		merged, changed, refused, err := transfer.Merge(base, []byte(bad), []byte(good))
		require.NoError(t, err)
		require.Len(t, refused, 2)
		if string(base) != good { // else it was removed
			require.JSONEq(t, good, string(merged))
			require.False(t, changed)
		}
		merged, changed, refused, err = transfer.Merge(nil, []byte(good), []byte(bad))
		require.NoError(t, err)
		require.Len(t, refused, 2)
		require.JSONEq(t, good, string(merged))
		require.True(t, changed)
	}
	sum, changed, added, err := transfer.Add([]byte(`{"RefreshToken":{"l":null,"m":{"home_account_id":"ann","environment":"login","secret":"t"},"n":{"home_account_id":"ann","environment":"login","secret":1}}}`), []byte(good))
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, 1, added.Entries)
	require.Zero(t, added.Left, "what nobody can use does not keep the file")
	require.Len(t, added.Refused, 2)
	require.Contains(t, string(sum), `"m"`)
	require.NotContains(t, string(sum), `"n"`)
}
