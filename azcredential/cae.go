package azcredential

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
)

// Sections of the cache. MSAL knows only the first one.
const (
	plainSection = "AccessToken"
	caeSection   = "AccessTokenCAE"
)

// caeView is a cache as the MSAL client for CAE sees it: the access tokens that it
// finds and stores are those of caeSection. All else is as it is.
type caeView struct {
	cache cache.ExportReplace

	mu     sync.Mutex
	memory *caeMemory // of the MSAL client that was seen last: there is one
}

// memoryOf returns the same *caeMemory for the same in-memory cache, by whose
// address a persistence.Cache tells them apart.
func (v *caeView) memoryOf(of any) *caeMemory {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.memory == nil || v.memory.of != of {
		v.memory = &caeMemory{of: of}
	}
	return v.memory
}

func (v *caeView) Replace(ctx context.Context, u cache.Unmarshaler, h cache.ReplaceHints) error {
	return v.cache.Replace(ctx, v.memoryOf(u), h)
}

func (v *caeView) Export(ctx context.Context, m cache.Marshaler, h cache.ExportHints) error {
	return v.cache.Export(ctx, v.memoryOf(m), h)
}

// caeMemory is an MSAL client's in-memory cache under the other section's name.
type caeMemory struct {
	of any // a cache.Unmarshaler and cache.Marshaler

	mu    sync.Mutex
	plain json.RawMessage // the section that MSAL does not see; nil: there is none
}

var errFormat = errors.New("what is stored is not a token cache") // not json's error, which may quote a secret

func (m *caeMemory) Unmarshal(data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var doc map[string]json.RawMessage
	if json.Unmarshal(data, &doc) != nil {
		return errFormat
	}
	plain := doc[plainSection]
	delete(doc, plainSection)
	rename(doc, caeSection, plainSection)
	shown, err := json.Marshal(doc)
	if err != nil {
		return errFormat
	}
	if err := m.of.(cache.Unmarshaler).Unmarshal(shown); err != nil {
		return err
	}
	m.plain = plain
	return nil
}

func (m *caeMemory) Marshal() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, err := m.of.(cache.Marshaler).Marshal()
	if err != nil {
		return nil, err
	}
	var doc map[string]json.RawMessage
	if json.Unmarshal(data, &doc) != nil || doc == nil {
		return nil, errFormat
	}
	delete(doc, caeSection)
	rename(doc, plainSection, caeSection)
	if m.plain != nil {
		doc[plainSection] = m.plain
	}
	return json.Marshal(doc)
}

func rename(doc map[string]json.RawMessage, from, to string) {
	if section, ok := doc[from]; ok {
		doc[to] = section
		delete(doc, from)
	}
}
