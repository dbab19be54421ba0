package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"

	"github.com/freehold-go/freehold"
)

//go:embed lua/snapshot.lua
var snapshotText string

//go:embed lua/get.lua
var getText string

//go:embed lua/scan.lua
var scanText string

//go:embed lua/commit.lua
var commitText string

// A script is sent as its digest, and as its text to a server that does not know it.
// NOSCRIPT is an answer: nothing has been done.
var (
	getScript    = rueidis.NewLuaScript(snapshotText + getText)
	scanScript   = rueidis.NewLuaScript(snapshotText + scanText)
	commitScript = rueidis.NewLuaScript(commitText)
)

// run runs a script and returns its answer. An error of the server means that the
// script has done nothing.
func (c *Client) run(ctx context.Context, s *rueidis.Lua, keys, args []string) ([]rueidis.RedisMessage, error) {
	if c.closed.Load() {
		return nil, freehold.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := s.Exec(ctx, c.lib, keys, args).ToArray()
	if err != nil {
		return nil, c.wrap(err)
	}
	return answer, nil
}

// connections is how many connections the library keeps: behind a restart of the
// server the first use of each fails.
const connections = 4

// runAgain is run for a script that may run twice: it is sent again if a connection
// turns out to be lost. sure is false if it may have run before the answer.
func (c *Client) runAgain(ctx context.Context, s *rueidis.Lua, keys, args []string) (answer []rueidis.RedisMessage, sure bool, err error) {
	for try := 0; ; try++ {
		answer, err = c.run(ctx, s, keys, args)
		if err == nil || errors.As(err, new(*refusal)) || errors.Is(err, freehold.ErrClosed) {
			return answer, try == 0, err
		}
		if try == connections || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return nil, false, err
		}
	}
}

// wrap names the server, and says what to do where that is known.
func (c *Client) wrap(err error) error {
	if errors.Is(err, rueidis.ErrClosing) {
		return fmt.Errorf("redis: %s: %w", c.at, freehold.ErrClosed)
	}
	if reply, ok := rueidis.IsRedisErr(err); ok {
		return &refusal{fmt.Errorf("redis: %s: %s%s: %w", c.at, reply.Error(), hint(reply.Error()), freehold.ErrUnavailable)}
	}
	return fmt.Errorf("redis: %s: %w: %w", c.at, freehold.ErrUnavailable, err)
}

// refusal is an error that the server has answered with: nothing was done.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// hint says what an operator can do about an error of the server.
func hint(text string) string {
	code, _, _ := strings.Cut(text, " ")
	switch code {
	case "OOM":
		return " (raise maxmemory, or give the read models a server of their own)"
	case "READONLY":
		return " (a replica: give the address of the primary)"
	case "NOAUTH", "WRONGPASS":
		return " (give user and password in the URL)"
	case "NOPERM":
		return " (the user needs +@scripting +@hash +@sortedset +@string +@keyspace +@connection +info +time, for keys of its prefix)"
	case "MISCONF":
		return " (the server cannot save to its disk: see its log)"
	case "CLUSTERDOWN":
		return " (not all slots are served)"
	case "WRONGTYPE":
		return " (somebody else's keys have our names: give the URL another prefix)"
	}
	return ""
}
