package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// oldest is the first version with the commands that are used.
const oldest = 6

// readAudit reads the settings that matter back, on every primary.
func (c *Client) readAudit(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nodes := c.lib.Nodes()
	var names []string
	for name := range nodes {
		names = append(names, name)
	}
	slices.Sort(names)
	var audit []string
	primaries := 0
	for _, name := range names {
		says, primary, err := c.auditNode(ctx, name, nodes[name], len(names) > 1)
		if err != nil {
			return nil, err
		}
		if primary {
			primaries++
			audit = append(audit, says...)
		}
	}
	if primaries == 0 {
		return nil, fmt.Errorf("redis: %s is a replica, and replicas are written by their primary only: give the address of the primary", c.at)
	}
	slices.Sort(audit)
	return append(slices.Compact(audit), "holds only what can be rebuilt: what it forgets, its followers build again from the journal"), nil
}

// auditNode asks one server.
func (c *Client) auditNode(ctx context.Context, name string, node rueidis.Client, several bool) (says []string, primary bool, err error) {
	info, err := node.Do(ctx, node.B().Info().Section("server", "memory", "persistence", "replication", "cluster").Build()).ToString()
	if _, refused := rueidis.IsRedisErr(err); refused { // before 7 there was one section at most
		info, err = node.Do(ctx, node.B().Info().Build()).ToString()
	}
	if err != nil {
		if !c.opts.Relaxed {
			return nil, false, fmt.Errorf("redis: %s does not tell its settings: %w: permit +info, or open relaxed", name, c.wrap(err))
		}
		return []string{"settings not known: INFO is not permitted"}, true, nil
	}
	is := fields(info)
	if is["role"] != "master" {
		return nil, false, nil
	}
	major, _, _ := strings.Cut(is["redis_version"], ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldest {
		return nil, false, fmt.Errorf("redis: %s has version %q: want %d or later", name, is["redis_version"], oldest)
	}
	says = append(says, "Redis "+is["redis_version"], "role primary")
	if is["cluster_enabled"] == "1" {
		says = append(says, "cluster: the keys of a read model are in one slot")
	}
	says, err = c.auditMemory(name, is, says)
	if err != nil {
		return nil, false, err
	}
	settings, err := node.Do(ctx, node.B().Arbitrary("CONFIG", "GET").Args("append*").Build()).AsStrMap()
	switch {
	case err != nil && errorIsReply(err):
		says = append(says, "CONFIG is not permitted: appendfsync not known")
	case err != nil:
		return nil, false, c.wrap(err)
	}
	switch {
	case is["aof_enabled"] == "1" && err == nil:
		says = append(says, "appendonly yes, appendfsync "+settings["appendfsync"])
	case is["aof_enabled"] == "1":
		says = append(says, "appendonly yes")
	default:
		says = append(says, "appendonly no: a restart goes back to the last snapshot, if there is one")
	}
	return says, true, nil
}

// auditMemory refuses settings by which keys vanish one by one: what is left would
// look whole.
func (c *Client) auditMemory(name string, is map[string]string, says []string) ([]string, error) {
	policy := is["maxmemory_policy"]
	if policy != "noeviction" && !c.opts.Relaxed {
		return nil, fmt.Errorf("redis: %s has maxmemory-policy %q, by which parts of a read model may vanish: set noeviction (CONFIG SET maxmemory-policy noeviction), give the read models a server of their own, or open relaxed", name, policy)
	}
	if policy != "noeviction" {
		return append(says, "relaxed: maxmemory-policy "+policy+": parts of a read model may vanish unnoticed"), nil
	}
	if is["maxmemory"] == "0" {
		return append(says, "noeviction, no maxmemory"), nil
	}
	return append(says, "noeviction at "+is["maxmemory_human"]), nil
}

func errorIsReply(err error) bool {
	var reply *rueidis.RedisError
	return errors.As(err, &reply)
}

// fields reads the lines of INFO.
func fields(info string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(info) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			all[key] = value
		}
	}
	return all
}
