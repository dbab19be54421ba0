package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
)

type forksCmd struct{}

func (forksCmd) Run(ctx context.Context, c *cli) error {
	var all host.Forks
	if err := c.get(ctx, "/operator/forks", nil, &all); err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(all); err != nil {
			return err
		}
	} else if err := printForks(&all); err != nil {
		return err
	}
	if all.Stopped != nil || len(all.Ahead) > 0 {
		return errFound
	}
	return nil
}

func printForks(all *host.Forks) error {
	fmt.Printf("%s is at epoch %s\n", all.Source, all.Epoch)
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for _, f := range all.Forks {
		settled := "open"
		if !f.Settled.IsZero() {
			settled = "settled " + f.Settled.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "fork %d\t%s\tbehind %d\tepoch %s\t%s\t%s\n", f.Number, f.Time.Format(time.RFC3339), f.Base.Position, f.Epoch, settled, f.Reason)
	}
	if stop := all.Stopped; stop != nil {
		fmt.Fprintln(w, "commands are refused:")
		for _, a := range stop.Ahead {
			where := a.Service
			if where == "" {
				where = "this service"
			}
			fmt.Fprintf(w, "  ahead\t%s\t%s\tat %d\n", where, a.Follower, a.Mark.Position)
		}
		for _, s := range stop.Silent {
			fmt.Fprintf(w, "  no answer\t%s\t%s\n", s.Service, s.Reason)
		}
	}
	for _, l := range all.Ahead {
		if l.Base.Source == "" {
			fmt.Fprintf(w, "%s is stopped:\t%s\n", l.Follower, l.Note)
			continue
		}
		if l.Cut() {
			fmt.Fprintf(w, "%s is stopped:\tit has not applied %s:%d to %d, which %s has cut\n", l.Follower, l.Base.Source, l.Mark.Position+1, l.Base.Position, l.Base.Source)
			continue
		}
		fmt.Fprintf(w, "%s is stopped:\tit has applied %s:%d to %d, which %s has lost\n", l.Follower, l.Mark.Source, l.Base.Position+1, l.Mark.Position, l.Mark.Source)
		for _, o := range l.Orphans {
			fmt.Fprintf(w, "  %d\t%s\t%s\t%s\n", o.Position, o.Type, o.Stream, o.ID)
		}
		if l.Note != "" {
			fmt.Fprintf(w, "  not all are listed:\t%s\n", l.Note)
		}
	}
	for _, d := range all.Decisions {
		if d.Cut() {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s:%d to %d\tnot applied\n", d.Time.Format(time.RFC3339), d.Choice, d.Follower, d.Base.Source, d.Mark.Position+1, d.Base.Position)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s:%d to %d\t%d orphans on record\n", d.Time.Format(time.RFC3339), d.Choice, d.Follower, d.Base.Source, d.Base.Position+1, d.Mark.Position, len(d.Orphans))
	}
	return w.Flush()
}

// decision names a follower that is stopped by a fork or a cut of a source.
type decision struct {
	Follower string `arg:"" optional:"" help:"The follower, as freehold forks shows it."`
	Source   string `arg:"" optional:"" help:"The source that lost or cut events."`
}

func (d decision) take(ctx context.Context, c *cli, choice, effects string) error {
	if (d.Follower == "") != (d.Source == "") {
		return errors.New("name the follower and the source: see freehold forks")
	}
	resp, err := c.ask(ctx, http.MethodPost, "/operator/"+choice, url.Values{"follower": {d.Follower}, "source": {d.Source}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var at freehold.Mark
	if err := json.NewDecoder(resp.Body).Decode(&at); err != nil {
		return err
	}
	switch {
	case c.JSON:
		return printJSON(at)
	case d.Follower == "":
		fmt.Printf("commands are taken again behind %s:%d\n", at.Source, at.Position)
	default:
		fmt.Printf("%s goes on behind %s:%d; %s\n", d.Follower, at.Source, at.Position, effects)
	}
	return nil
}

type adoptCmd struct{ decision }

func (a adoptCmd) Run(ctx context.Context, c *cli) error {
	return a.take(ctx, c, follow.Adopted, "compare its effects of what was lost by business key")
}

type skipCmd struct{ decision }

func (s skipCmd) Run(ctx context.Context, c *cli) error {
	if s.Follower == "" {
		return errors.New("name the follower and the source: see freehold forks")
	}
	return s.take(ctx, c, follow.Skipped, "what it skipped is on record")
}

type keepCmd struct{ decision }

func (k keepCmd) Run(ctx context.Context, c *cli) error {
	if k.Follower == "" {
		return errors.New("name the follower and the source: see freehold forks")
	}
	return k.take(ctx, c, follow.Kept, "its effects of what was lost stand, and are on record")
}
