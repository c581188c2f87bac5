package redisstore

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/web/internal/account"
)

// Check asks the server, in a Cluster every master, what happens to a save that it has
// acknowledged. It returns warnings, each of one or two sentences for a person: about
// data that is not on disk when Redis is killed, sign-ins that are evicted when its
// memory is full, reads from replicas. Call Check when the program starts, and log the
// warnings.
//
// A managed server may refuse to show its settings (CONFIG); then a warning says so,
// and what is not known. Check fails only if the server cannot be asked at all.
func (s *Store) Check(ctx context.Context) (warnings []string, err error) {
	found, err := account.Within(ctx, rows{s}, s.check)
	if err != nil {
		why := account.Explain(ctx, rows{s}, err)
		return nil, &persistence.Error{Op: "check", Backend: backend, Err: why.Err, Remedy: why.Remedy}
	}
	return found, nil
}

func (s *Store) check(ctx context.Context) (warnings []string, err error) {
	var mu sync.Mutex
	add := func(ctx context.Context, server *redis.Client) error {
		found, err := checkServer(ctx, server)
		mu.Lock()
		defer mu.Unlock()
		for _, w := range found {
			if !slices.Contains(warnings, w) {
				warnings = append(warnings, w)
			}
		}
		return err
	}
	replicas := false
	switch c := s.client.(type) {
	case *redis.Client:
		err = add(ctx, c)
	case *redis.ClusterClient:
		o := c.Options()
		replicas = o.ReadOnly || o.RouteByLatency || o.RouteRandomly
		err = c.ForEachMaster(ctx, add)
	case *redis.Ring:
		err = c.ForEachShard(ctx, add)
	default:
		return []string{"What Redis does with a save is not known: this kind of client has no way to ask each server."}, nil
	}
	if replicas {
		warnings = append(warnings, "The client reads from replicas, which lag behind: a sign-in or a sign-out may be seen late. Set none of ReadOnly, RouteByLatency and RouteRandomly.")
	}
	slices.Sort(warnings)
	return warnings, err
}

// checkServer asks one server. INFO says most of it, and managed servers permit
// it; the rest only CONFIG does.
func checkServer(ctx context.Context, c *redis.Client) (warnings []string, err error) {
	text, err := c.Info(ctx).Result()
	if err != nil {
		return nil, err
	}
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		info[name] = value
	}
	config := make(map[string]string)
	known := true
	for _, name := range []string{"appendfsync", "save"} {
		values, err := c.ConfigGet(ctx, name).Result()
		if known = known && err == nil; known {
			config[name] = values[name]
		}
	}

	if info["role"] == "slave" {
		warnings = append(warnings, "The server is a read-only replica: nothing can be saved. Connect to the master.")
	}
	switch {
	case info["aof_enabled"] == "1" && !known:
		warnings = append(warnings, "Redis keeps an append-only file, and does not say how often it goes to disk (CONFIG is refused): it is not known how much a power cut loses. Look for appendfsync in the provider's settings.")
	case info["aof_enabled"] == "1" && config["appendfsync"] == "everysec":
		warnings = append(warnings, "Redis loses the saves of the last second or two in a power cut (appendfsync everysec), though none when only its process is killed. Those users sign in again. To lose none: appendfsync always.")
	case info["aof_enabled"] == "1" && config["appendfsync"] == "no":
		warnings = append(warnings, "Redis loses the saves of the last half minute or so in a power cut (appendfsync no). Those users sign in again. Set appendfsync to everysec or always.")
	case info["aof_enabled"] == "1": // always
	case info["aof_enabled"] == "":
		warnings = append(warnings, "Redis does not say whether it keeps data on disk: it is not known whether a restart signs everybody out.")
	case !known:
		warnings = append(warnings, "Redis keeps no append-only file (appendonly no), and does not say whether it takes snapshots (CONFIG is refused): when it is killed, all saves since the last snapshot are lost, or all that there are. Those users sign in again. Switch persistence on in the provider's settings.")
	case config["save"] == "":
		warnings = append(warnings, "Redis keeps nothing on disk (appendonly no, no snapshots): a restart signs everybody out. Set appendonly yes.")
	default:
		warnings = append(warnings, "Redis loses all saves since its last snapshot when it is killed (appendonly no, save \""+config["save"]+"\"). Those users sign in again. Set appendonly yes.")
	}

	policy := info["maxmemory_policy"]
	limit, noLimit := strconv.ParseInt(info["maxmemory"], 10, 64)
	switch {
	case policy == "":
		warnings = append(warnings, "Redis does not say what it does when its memory is full: it may evict sign-ins. Set maxmemory-policy noeviction.")
	case policy != "noeviction" && (noLimit != nil || limit > 0):
		warnings = append(warnings, "Redis evicts sign-ins when its memory is full (maxmemory-policy "+policy+"). Set noeviction, or give the accounts a server of their own.")
	}
	return warnings, nil
}
