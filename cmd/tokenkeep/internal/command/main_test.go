package command

import (
	"github.com/tokenkeep/tokenkeep/cmd/tokenkeep/internal/sample"
	"github.com/tokenkeep/tokenkeep/encrypted"
)

const planted = sample.Planted

// cheap is the cost of the tests' passphrases: the real one takes most of a
// test's time.
var cheap = encrypted.Cost{Memory: 64, Passes: 1, Lanes: 1}
