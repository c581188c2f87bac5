// Package lint holds laws that the source of this repository obeys, as tests.
package lint
