//go:build unix && !linux && !darwin

package securefile

import "context"

func renameNew(_ context.Context, from, to string) error { return renameIfAbsent(from, to) }
