// Package scale measures what a request of a web app costs when the store
// holds a thousand accounts, and when it holds a million. It has only tests.
package scale
