// Command freehold is the operator's view of a service: its journal as it grows, its
// streams, how far its followers are, and what they have parked. It speaks to a
// running service's operator endpoints.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/transport"
)

type cli struct {
	URL       string `help:"Base URL of the service." default:"http://127.0.0.1:8080" env:"FREEHOLD_URL"`
	TokenFile string `help:"File with the operator's token." default:"shop-data/operator.token" type:"path" env:"FREEHOLD_TOKEN_FILE"`
	JSON      bool   `help:"Print JSON."`

	Tail    tailCmd    `cmd:"" help:"Print the journal, oldest first, and what comes."`
	Streams streamsCmd `cmd:"" help:"List streams, or print one."`
	Lag     lagCmd     `cmd:"" help:"Show where each follower stands; exit status 1 if one is stopped or stalled."`
	Parked  parkedCmd  `cmd:"" help:"List parked events, retry a key, or give its first event up."`
	Forks   forksCmd   `cmd:"" help:"Show where databases went back in time, who is ahead, and what was lost or cut; exit status 1 if somebody has to decide."`
	Adopt   adoptCmd   `cmd:"" help:"Accept that what a source lost never happened: its follower goes on where the histories part. Without arguments: let this service take commands again."`
	Keep    keepCmd    `cmd:"" help:"Let a follower go on like adopt, with it on record that its effects of what was lost stand."`
	Skip    skipCmd    `cmd:"" help:"Let a follower that needs events which its source has cut begin behind them, without having applied them; on record."`
	Verify  verifyCmd  `cmd:"" help:"Recompute digests and chain of the whole journal."`
}

func main() { os.Exit(run(os.Args[1:])) }

var errFound = errors.New("found")

func run(args []string) int {
	var c cli
	parser, err := kong.New(&c, kong.Name("freehold"), kong.Description("Look into a running service: journal, streams, followers, parked events."), kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(os.Stderr, "freehold:", err)
		return 2
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "freehold: %v (see freehold --help)\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command.BindTo(ctx, (*context.Context)(nil))
	switch err := command.Run(&c); {
	case err == nil || ctx.Err() != nil:
		return 0
	case errors.Is(err, errFound):
		return 1
	default:
		fmt.Fprintln(os.Stderr, "freehold:", err)
		return 1
	}
}

// ask sends a request and returns the answer if it is 200.
func (c *cli) ask(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	raw, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("operator's token: %w: give its --token-file", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(raw)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: is the service running on %s?", err, c.URL)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var problem struct{ Detail string }
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16)) // what there is of an explanation
	if json.Unmarshal(body, &problem) != nil || problem.Detail == "" {
		problem.Detail = strings.TrimSpace(string(body))
	}
	return nil, fmt.Errorf("%s: %s", resp.Status, problem.Detail)
}

func (c *cli) get(ctx context.Context, path string, query url.Values, out any) error {
	resp, err := c.ask(ctx, http.MethodGet, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

func printJSON(v any) error {
	raw, err := json.Marshal(v)
	if err == nil {
		fmt.Println(string(raw))
	}
	return err
}

type tailCmd struct {
	After int64 `help:"Begin behind this position."`
	Once  bool  `help:"Stop at the head instead of waiting for more."`
}

func (t *tailCmd) Run(ctx context.Context, c *cli) error {
	after := t.After
	for {
		q := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {"1000"}}
		if !t.Once {
			q.Set("wait", "20")
		}
		resp, err := c.ask(ctx, http.MethodGet, "/feed", q)
		if err != nil {
			return err
		}
		lines := bufio.NewReader(resp.Body)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				break
			}
			r, err := transport.ParseJSON(line)
			if err != nil {
				return errors.Join(err, resp.Body.Close())
			}
			after = int64(r.At.Position)
			switch {
			case c.JSON:
				fmt.Print(string(line))
			case r.Placeholder():
				fmt.Printf("%8d  (internal)\n", r.At.Position)
			default:
				fmt.Printf("%8d  %s  %-24s %s@%d  %s\n", r.At.Position, r.Time.Format("15:04:05.000000"), r.Type.Name, r.Stream, r.Version, r.Raw)
			}
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
		head, err := strconv.ParseInt(resp.Header.Get(outbox.HeaderHead), 10, 64)
		if err != nil {
			return fmt.Errorf("%s does not answer like a feed", c.URL)
		}
		if t.Once && after >= head {
			return nil
		}
	}
}

type streamsCmd struct {
	Stream string `arg:"" optional:"" help:"Print the events of this stream."`
	After  string `help:"List streams behind this one."`
	Limit  int    `help:"At most so many." default:"100"`
}

func (s *streamsCmd) Run(ctx context.Context, c *cli) error {
	if s.Stream != "" {
		var events []map[string]any
		if err := c.get(ctx, "/operator/streams/"+url.PathEscape(s.Stream), nil, &events); err != nil {
			return err
		}
		if len(events) == 0 {
			return fmt.Errorf("no stream %s in this journal: freehold streams lists those that there are", s.Stream)
		}
		for _, e := range events {
			if err := printJSON(e); err != nil {
				return err
			}
		}
		return nil
	}
	var all []journal.StreamInfo
	if err := c.get(ctx, "/operator/streams", url.Values{"after": {s.After}, "limit": {strconv.Itoa(s.Limit)}}, &all); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(all)
	}
	for _, st := range all {
		fmt.Printf("%6d  %s\n", st.Version, st.Stream)
	}
	return nil
}

type lagCmd struct{}

func (lagCmd) Run(ctx context.Context, c *cli) error {
	var all []follow.Status
	if err := c.get(ctx, "/operator/followers", nil, &all); err != nil {
		return err
	}
	bad := false
	for _, st := range all {
		bad = bad || st.Stalled || st.State == follow.Diverged || st.State == follow.Failed
	}
	if c.JSON {
		if err := printJSON(all); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "FOLLOWER\tSOURCE\tSTATE\tPOSITION\tBEHIND\tSECONDS\tPARKED\tERROR")
		for _, st := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%.1f\t%d\t%s\n", st.Follower, st.Source, st.State, st.Mark.Position, st.Lag, st.Seconds, st.Parked, st.Error)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if bad {
		return errFound
	}
	return nil
}

type parkedCmd struct {
	List    parkedList    `cmd:"" default:"withargs" help:"List parked events, of one follower or of all."`
	Retry   parkedRetry   `cmd:"" help:"Apply a key's parked events in order."`
	Release parkedRelease `cmd:"" help:"Give a key's first parked event up, keep it on record, and apply the rest."`
}

type parkedList struct {
	Follower string `arg:"" optional:"" help:"The follower, as freehold lag shows it."`
}

func (p parkedList) Run(ctx context.Context, c *cli) error {
	var all []follow.Parked
	if err := c.get(ctx, "/operator/parked", url.Values{"follower": {p.Follower}}, &all); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(all)
	}
	for _, p := range all {
		error, _, _ := strings.Cut(p.Error, "\n")
		fmt.Printf("%s  %s:%d  %s  key %s  %d attempts  %s\n", p.Follower, p.Source, p.Event.At.Position, p.Event.Type, p.Key, p.Attempts, error)
	}
	return nil
}

// parkedKey names a key.
type parkedKey struct {
	Follower string `arg:""`
	Source   string `arg:""`
	Key      string `arg:""`
}

func (k parkedKey) act(ctx context.Context, c *cli, action string) error {
	resp, err := c.ask(ctx, http.MethodPost, "/operator/parked/"+action, url.Values{"follower": {k.Follower}, "source": {k.Source}, "key": {k.Key}})
	if err != nil {
		return err
	}
	fmt.Println("released", k.Key)
	return resp.Body.Close()
}

type parkedRetry struct{ parkedKey }

func (k parkedRetry) Run(ctx context.Context, c *cli) error { return k.act(ctx, c, "retry") }

type parkedRelease struct{ parkedKey }

func (k parkedRelease) Run(ctx context.Context, c *cli) error { return k.act(ctx, c, "release") }

type verifyCmd struct{}

func (verifyCmd) Run(ctx context.Context, c *cli) error {
	var at freehold.Mark
	if err := c.get(ctx, "/operator/verify", nil, &at); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(at)
	}
	fmt.Printf("%s: %d events verified, chain %s\n", at.Source, at.Position, at.Chain)
	return nil
}
