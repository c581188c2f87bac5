package tokenkeep

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/follow"
	"github.com/tokenkeep/tokenkeep/internal/quote"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// neighbourTime bounds how long a neighbour is waited for.
const neighbourTime = 2 * time.Second

// checkFollow refuses neighbours that cannot be followed. One that cannot be read
// now may be later, and is no reason to fail.
func (cfg *Config) checkFollow(ctx context.Context) error {
	if _, err := persistence.New(persistence.NewMemory(), persistence.WithFollow(cfg.Follow...)); err != nil {
		return openError("", fmt.Errorf("Config.Follow: %w", persistence.Cause(err)), "Leave it out of Config.Follow.")
	}
	for _, n := range cfg.Follow {
		bounded, cancel := context.WithTimeout(ctx, neighbourTime)
		data, _, err := n.LoadRevision(bounded)
		cancel()
		if ctx.Err() != nil {
			return openError(n.Describe().Location, ctx.Err(), "")
		}
		d, parseErr := tokencache.Parse(tokencache.Trim(data))
		if err != nil || parseErr != nil {
			continue
		}
		if strangers, only := follow.Strangers(d); only {
			for i := range strangers {
				strangers[i] = quote.Text(strangers[i])
			}
			at := n.Describe()
			return &persistence.Error{Op: "open", Backend: at.Backend, Location: at.Location,
				Err: fmt.Errorf("%w: only sign-ins with Microsoft Entra ID can be followed, and these are with %s: a refresh here may spend a refresh token that works only once",
					persistence.ErrUnavailable, strings.Join(strangers, ", ")),
				Remedy: "Leave it out of Config.Follow, and let the user sign in here."}
		}
	}
	return nil
}
