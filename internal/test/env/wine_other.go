//go:build !windows

package env

// Wine tells whether the program runs under Wine, which is not Windows: what
// passes there need not pass here, nor the other way round.
func Wine() bool { return false }
