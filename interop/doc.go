// Package interop shares the token caches of other programs.
package interop
