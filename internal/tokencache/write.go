package tokencache

// A Builder builds a cache from parts of others.
type Builder struct {
	parts []part
	size  int
}

// A part is one section: its value, or its entries if the value is nil.
type part struct {
	key, val []byte
	entries  []*Entry
}

// Copy adds a section as it is.
func (b *Builder) Copy(s *Section) { b.add(part{key: s.key, val: s.val}) }

// Value adds a section that is one value: what [Section.Whole] returned.
func (b *Builder) Value(e *Entry) { b.add(part{key: e.key, val: e.val}) }

// Entries adds a section with the name of s and these entries.
func (b *Builder) Entries(s *Section, entries []*Entry) { b.add(part{key: s.key, entries: entries}) }

func (b *Builder) add(p part) {
	b.parts = append(b.parts, p)
	b.size += len(p.key) + len(p.val) + len(`:{},`)
	for _, e := range p.entries {
		b.size += len(e.key) + len(e.val) + len(`:,`)
	}
}

// Bytes returns the cache.
func (b *Builder) Bytes() []byte {
	out := make([]byte, 0, b.size+len(`{}`))
	out = append(out, '{')
	for i, p := range b.parts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(out, p.key...), ':')
		if p.val != nil {
			out = append(out, p.val...)
			continue
		}
		out = append(out, '{')
		for j, e := range p.entries {
			if j > 0 {
				out = append(out, ',')
			}
			out = append(append(append(out, e.key...), ':'), e.val...)
		}
		out = append(out, '}')
	}
	return append(out, '}')
}

// Filter returns the cache without the entries that keep reports false for, and
// how many these are. If there are none, data is Data itself. What is not an
// entry stays.
func (d *Doc) Filter(keep func(section string, e *Entry) bool) (data []byte, removed int) {
	var b Builder
	for i := range d.sections {
		s := &d.sections[i]
		kept := make([]*Entry, 0, len(s.Entries))
		for i := range s.Entries {
			if e := &s.Entries[i]; keep(s.Name, e) {
				kept = append(kept, e)
			}
		}
		if out := len(s.Entries) - len(kept); out > 0 {
			removed += out
			b.Entries(s, kept)
		} else {
			b.Copy(s)
		}
	}
	if removed == 0 {
		return d.data, 0
	}
	return b.Bytes(), removed
}

// Restore returns the cache with the entries of some accounts as another cache
// has them.
func (d *Doc) Restore(from *Doc, accounts []Account) []byte {
	of := make(map[Account]bool, len(accounts))
	for _, a := range accounts {
		if a.HomeAccountID != "" {
			of[a.Identity()] = true
		}
	}
	var b Builder
	add := func(s *Section, own, others []Entry) {
		var es []*Entry
		taken := map[string]bool{}
		for i := range others {
			if e := &others[i]; of[e.Account().Identity()] {
				es = append(es, e)
				taken[string(e.pair)] = true
			}
		}
		for i := range own {
			if e := &own[i]; !of[e.Account().Identity()] && !taken[string(e.pair)] {
				es = append(es, e)
			}
		}
		b.Entries(s, es)
	}
	for i := range d.sections {
		s := &d.sections[i]
		if other := from.Section(s.Name); s.Object && (other == nil || other.Object) {
			add(s, s.Entries, other.List())
		} else {
			b.Copy(s)
		}
	}
	for i := range from.sections {
		if s := &from.sections[i]; s.Object && d.Section(s.Name) == nil {
			add(s, nil, s.Entries)
		}
	}
	return b.Bytes()
}
