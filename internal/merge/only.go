package merge

import "strings"

// Only returns data without the entries of other accounts than that one, and
// how many it left out. Entries of no account (AppMetadata, an application's
// own tokens) stay, and so does what is not of the two-level format. If nothing
// is left out, it returns data itself. The error is ErrOurs if data is not a
// cache.
func Only(data []byte, homeAccountID string) (kept []byte, out int, err error) {
	d, ok := scan(data)
	if !ok {
		return nil, 0, ErrOurs
	}
	var o output
	for _, s := range d.sections {
		if !s.object || len(s.entries) == 0 {
			o.section(s.key, s.val)
			continue
		}
		own := make([]*entry, 0, len(s.entries))
		for i := range s.entries {
			e := &s.entries[i]
			if of := fieldsOf(e.val).account.HomeAccountID; of == "" || strings.EqualFold(of, homeAccountID) {
				own = append(own, e)
			}
		}
		out += len(s.entries) - len(own)
		o.section(s.key, nil, own...)
	}
	if out == 0 {
		return data, 0, nil
	}
	return o.bytes(), out, nil
}
