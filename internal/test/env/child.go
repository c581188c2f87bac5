package env

import "testing"

// Temp is for the environment of a child process: its temporary files then lie in a
// folder of the test, which removes them although the child is killed.
func Temp(t testing.TB) []string {
	dir := t.TempDir()
	return []string{"TMPDIR=" + dir, "TMP=" + dir, "TEMP=" + dir}
}
