package tokenkeep_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
)

// One program, in a session with the kernel's keyring and in one without: plaintext
// that the other stores stays in use, and is not moved to where it would end with a
// restart.
func TestKernelAndPlaintextOfAnotherSession(t *testing.T) {
	m := newMachine(t)
	kernel := keyringtest.NewKernel()
	server := m.permitting()
	server.Keyring, server.Kernel = keyringtest.NewAbsent(), kernel
	container := server
	container.Kernel = keyringtest.NewAbsent()

	running, err := tokenkeep.Open(ctx, server)
	require.NoError(t, err)
	require.Equal(t, "kernel", running.Describe().KeySource)
	other, err := tokenkeep.Open(ctx, container)
	require.NoError(t, err)
	save(t, other, fromSSH)
	require.Equal(t, []string{"app.plaintext.json"}, m.files())
	m.takeWarnings()

	require.Equal(t, fromSSH, load(t, running))
	save(t, running, fromDesktop)
	require.Equal(t, []string{"app.plaintext.json"}, m.files())
	require.Equal(t, fromDesktop, load(t, other))
	again, err := tokenkeep.Open(ctx, server)
	require.NoError(t, err)
	require.Equal(t, fromDesktop, load(t, again))
	require.Empty(t, m.takeWarnings(), "it is no news")

	// The user asks for it: then it moves.
	asked := server
	asked.Store = "kernel"
	require.NoError(t, tokenkeep.MovePlaintext(ctx, asked))
	require.Equal(t, []string{"app.enc"}, m.files())
	require.Equal(t, fromDesktop, load(t, running))
	m.takeWarnings()

	// And beside what is stored there it stays.
	m.plant(fromSSH)
	again, err = tokenkeep.Open(ctx, server)
	require.NoError(t, err)
	require.Equal(t, fromDesktop, load(t, again))
	warnings := m.takeWarnings()
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0].String(), "neither used nor moved")
	require.Contains(t, warnings[0].Remedy, " -to kernel")
	require.Equal(t, []string{"app.enc", "app.plaintext.json"}, m.files())
	require.ErrorContains(t, tokenkeep.MovePlaintext(ctx, server), "neither used nor moved", "not without asking for it by name")
}
