// Package weakmap keeps values by the address of other values, for as long as these
// live and no longer.
package weakmap

import (
	"reflect"
	"runtime"
	"sync"
	"weak"
)

// Key is the identity of the value that a pointer points to. It does not keep the value
// alive, and no later value at the same address has the same Key. Values without an
// identity have the zero Key.
type Key struct {
	at  weak.Pointer[byte]
	typ reflect.Type // a struct and its first field have one address
}

// KeyOf returns the identity of the value that v points to, or the zero Key if v is not
// a pointer, is nil, or points to a type without size, whose values may all have one
// address.
func KeyOf(v any) Key {
	p, typ := pointer(v)
	if p == nil {
		return Key{}
	}
	return Key{weak.Make(p), typ}
}

// Alive reports whether the value of the Key may still be in use.
func (k Key) Alive() bool { return k.at.Value() != nil }

func pointer(v any) (*byte, reflect.Type) {
	typ := reflect.TypeOf(v)
	if typ == nil || typ.Kind() != reflect.Pointer || typ.Elem().Size() == 0 {
		return nil, nil
	}
	return (*byte)(reflect.ValueOf(v).UnsafePointer()), typ
}

// Map keeps a V for each of any number of owners. It is safe for concurrent use.
// A V that refers to its owner keeps it, and itself, alive. Make one with New.
type Map[V any] struct {
	create func() V

	mu     sync.Mutex
	values map[Key]V
}

// New returns an empty Map, whose values create makes.
func New[V any](create func() V) *Map[V] { return &Map[V]{create: create, values: map[Key]V{}} }

// Of returns the value of owner, which is made at the first call. It reports false
// where owner has no identity; see [KeyOf].
func (m *Map[V]) Of(owner any) (value V, ok bool) {
	p, typ := pointer(owner)
	if p == nil {
		return value, false
	}
	k := Key{weak.Make(p), typ}
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok = m.values[k]
	if !ok {
		value = m.create()
		m.values[k] = value
		// The cleanup must not keep the Map alive.
		runtime.AddCleanup(p, remove[V], entry[V]{weak.Make(m), k})
	}
	return value, true
}

// Len returns the number of values in the Map.
func (m *Map[V]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.values)
}

type entry[V any] struct {
	of  weak.Pointer[Map[V]]
	key Key
}

func remove[V any](e entry[V]) {
	if m := e.of.Value(); m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.values, e.key)
	}
}
