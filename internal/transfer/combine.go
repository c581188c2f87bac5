package transfer

import (
	"bytes"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// Merge merges from into to. If base is what an earlier copy took, it is a three-way
// merge. If base is nil, every entry of either side is kept, and of two for one key the
// newer. What MSAL cannot take is left out and named in refused. changed is false if to
// would stay as it is.
func Merge(base, from, to []byte) (merged []byte, changed bool, refused []tokencache.Refused, err error) {
	in := merge.BytesInput{BaseUnknown: base == nil, Now: time.Now()}
	// Also from base: else such entries there would count as removed.
	in.Base, _ = tokencache.Sound(base)
	var ofTo []tokencache.Refused
	in.Ours, refused = tokencache.Sound(Usable(from))
	in.Theirs, ofTo = tokencache.Sound(Usable(to))
	if merged, changed, err = merge.Bytes(in); err != nil {
		return nil, false, nil, err
	}
	return merged, changed || !bytes.Equal(in.Theirs, to), append(refused, ofTo...), nil
}

// Usable returns the part of data that can be used, empty if there is none; see
// [tokencache.Trim].
func Usable(data []byte) []byte { return tokencache.Trim(data) }

// Malformed reports whether data is a damaged token cache: it begins as a JSON
// object or with a byte order mark, and does not parse. Data of another format is
// not malformed, nor is data that holds nothing.
func Malformed(data []byte) bool {
	usable := Usable(data)
	_, err := tokencache.Parse(usable)
	if err == nil {
		return false
	}
	text := bytes.TrimLeft(usable, " \t\r\n")
	return text[0] == '{' || bytes.HasPrefix(text, []byte("\ufeff"))
}

// Accounts returns how many accounts data has. Data that is not a token cache has
// none.
func Accounts(data []byte) int {
	d, err := tokencache.Parse(Usable(data))
	if err != nil {
		return 0
	}
	return len(identities(d))
}

// identities returns the accounts of a cache, each once.
func identities(d *tokencache.Doc) map[tokencache.Account]bool {
	all := map[tokencache.Account]bool{}
	for _, a := range d.Accounts() {
		all[a.Identity()] = true
	}
	return all
}

// Added is what [Add] did.
type Added struct {
	Entries int                  // that were added
	Left    int                  // that were neither added nor there already
	Refused []tokencache.Refused // what MSAL cannot take: neither added nor counted as left
}

// Add adds to a cache what data of unknown origin may add to it. Every entry of to was
// saved with the key. But anybody who can write a file may have made from, or put back
// an old copy. So Add
//
//   - replaces no entry: where both have a key, to's entry stands, whatever its
//     age;
//   - adds no account that to lacks, and no entry of such an account: it may have
//     been signed out;
//   - adds nothing to sections that are not MSAL's, where a key stands for a
//     sign-in of its own;
//   - leaves out what MSAL cannot take.
//
// So it adds entries of accounts that to has, and entries that belong to no account.
func Add(from, to []byte) (sum []byte, changed bool, a Added, err error) {
	source, err := tokencache.Parse(Usable(from))
	if err != nil {
		return nil, false, Added{}, err
	}
	target, err := tokencache.Parse(Usable(to))
	if err != nil {
		return nil, false, Added{}, err
	}
	known := identities(target)
	data, _ := source.Filter(func(section string, e *tokencache.Entry) bool {
		of := e.Account()
		isObject := e.Value()[0] == '{'
		there, err := target.Get(section, e.Key())
		switch {
		case there != nil:
			return false
		case !isObject && tokencache.Shared(section):
			a.Refused = append(a.Refused, tokencache.Refused{Section: section, Key: e.Key()})
			return false
		case err != nil, !tokencache.Shared(section), of.HomeAccountID != "" && !known[of.Identity()]:
			a.Left++
			return false
		}
		a.Entries++
		return true
	})
	additions, err := tokencache.Parse(data)
	if err != nil {
		return nil, false, Added{}, err
	}
	// A section that is no object has no entries. null is what some libraries write
	// for an empty one.
	for i := range additions.Sections() {
		switch s := &additions.Sections()[i]; {
		case s.Object, string(s.Value()) == "null":
		case tokencache.Shared(s.Name):
			a.Refused = append(a.Refused, tokencache.Refused{Section: s.Name, Whole: true})
		default:
			a.Left++
		}
	}
	data, refused := objects(additions).Sound()
	a.Refused = append(a.Refused, refused...)
	if a.Entries -= len(refused); a.Entries == 0 {
		return to, false, a, nil
	}
	if additions, err = tokencache.Parse(data); err != nil {
		return nil, false, Added{}, err
	}
	m := merge.Merge(merge.Input{Ours: additions, Theirs: target, Now: time.Now()})
	return m.Merged, m.Changed, a, nil
}

// objects returns the sections of a cache that are objects, and have entries.
func objects(d *tokencache.Doc) *tokencache.Doc {
	var b tokencache.Builder
	for i := range d.Sections() {
		if s := &d.Sections()[i]; s.Object && len(s.Entries) > 0 {
			b.Copy(s)
		}
	}
	only, err := tokencache.Parse(b.Bytes())
	if err != nil {
		panic(err) // not reached: parts of a cache are one
	}
	return only
}
