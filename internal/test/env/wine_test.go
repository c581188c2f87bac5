package env_test

import (
	"os"
	"runtime"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// wine/run sets the variable to "1".
func TestWine(t *testing.T) {
	if wine := env.Wine(); wine != (os.Getenv("TOKENKEEP_WINE") == "1" && runtime.GOOS == "windows") {
		t.Errorf("under Wine: %v", wine)
	}
}
