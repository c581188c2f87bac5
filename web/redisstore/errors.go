package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/account"
)

var errNoData = fmt.Errorf("%w: the key has a revision and no data", persistence.ErrCorrupt)

// refusals are the answers of a Redis that does not serve a command, by the
// word that they begin with.
var refusals = map[string]struct{ what, remedy string }{
	"READONLY":    {"the server is a read-only replica", "Connect to the master, through Sentinel or Cluster where one of them chooses it."},
	"OOM":         {"the server is full (maxmemory)", "Give Redis more memory, or remove what else it keeps."},
	"MISCONF":     {"the server stopped writing because it cannot save to its disk", "See Redis's log, and free space on its disk."},
	"LOADING":     {"the server is still loading its data", "Try again when Redis has started."},
	"BUSY":        {"the server is busy with a script", "See which program's script runs for so long."},
	"MASTERDOWN":  {"the replica has lost its master", "See whether a master is up."},
	"CLUSTERDOWN": {"the cluster is down", "See whether a master is up for every slot (CLUSTER INFO)."},
	"TRYAGAIN":    {"the cluster is moving the key", "Try again."},
	"NOREPLICAS":  {"the server has too few replicas to accept a write", "See whether the replicas are up (min-replicas-to-write)."},
	"NOAUTH":      {"the server wants a password", "Give the client its user name and password."},
	"WRONGPASS":   {"the server refuses the user name or password", "Correct the client's user name and password."},
	"NOPERM":      {"the server does not permit this user the command", "Permit it HMGET, PTTL, PEXPIRE, EVALSHA, EVAL, GET, SET, HGET, HSET and DEL on the keys with this prefix."},
}

func (r rows) Explain(err error) account.Reason {
	var answer redis.Error
	switch {
	case errors.Is(err, persistence.ErrCorrupt):
		return account.Reason{Err: err, Remedy: "Something else changed the key; delete it, and the user signs in again."}
	case errors.As(err, &answer):
		return explainAnswer(err)
	case errors.Is(err, redis.ErrClosed):
		return account.Reason{Err: fmt.Errorf("%w: the client is closed", persistence.ErrUnavailable), Remedy: "Close the client only after the last use.", Refused: true}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return account.Reason{Err: err}
	}
	return account.Reason{Err: fmt.Errorf("%w: %w", persistence.ErrUnavailable, err), Remedy: "See whether Redis is up and reachable."}
}

func explainAnswer(err error) account.Reason {
	word, _, _ := strings.Cut(err.Error(), " ")
	if r, ok := refusals[word]; ok {
		return account.Reason{Err: fmt.Errorf("%w: %s", persistence.ErrUnavailable, r.what), Remedy: r.remedy, Refused: true}
	}
	switch {
	case word == "WRONGTYPE":
		return account.Reason{Err: errors.New("the key is not a hash: something else uses it"), Remedy: "Set Options.Prefix to one that nothing else uses.", Refused: true}
	case strings.Contains(err.Error(), "max number of clients"):
		return account.Reason{Err: fmt.Errorf("%w: the server has too many clients", persistence.ErrUnavailable), Remedy: "Raise Redis's maxclients, or lower the clients' PoolSize.", Refused: true}
	case strings.Contains(err.Error(), "unknown command"):
		return account.Reason{Err: fmt.Errorf("%w: the server does not know a command that is needed", persistence.ErrUnavailable), Remedy: "Use Redis 4 or later, with EVAL and EVALSHA enabled.", Refused: true}
	}
	// The rest of the answer may quote what was sent.
	return account.Reason{Err: fmt.Errorf("%w: the server refused the command (%s)", persistence.ErrUnavailable, word), Remedy: "See Redis's log."}
}
