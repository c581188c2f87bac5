package persistence

// Persistence returns the backend that [New] was given: for [Move], or to ask
// what it is. Who saves with it directly overwrites what others stored.
func (c *Cache) Persistence() Persistence {
	if h, ok := c.store.(hashed); ok {
		return h.Persistence
	}
	return c.store
}
