package persistence

// Remembered returns how many in-memory caches c remembers.
func Remembered(c *Cache) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.inMemory)
}
