package main

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
	"understudy/smtp/queue"
)

// filters are the flags that select messages, the same for every command.
type filters struct {
	ids                                      []string
	sender, recipient, domain, nextHop, text string
	olderThan, youngerThan                   string
	largerThan, smallerThan                  string
	states                                   []string
	limit                                    int
	all                                      bool
	// forced is the state a command is about; it leaves no choice.
	forced queue.State
}

// filterHelp is the part of a help text that explains them.
const filterHelp = `
Messages are named by their ids ("-" reads ids from standard input, the first
word of each line) or selected by filters; all filters must match. Addresses and
domains are exact or patterns with * and ?, without regard to case.`

// addFilters gives cmd the flags.
func addFilters(cmd *cobra.Command, f *filters) {
	fl := cmd.Flags()
	fl.StringSliceVar(&f.ids, "id", nil, "queue `id`s, the same as arguments")
	fl.StringVar(&f.sender, "sender", "", "envelope sender, exact or `pattern`; \"<>\" is the null sender")
	fl.StringVar(&f.recipient, "recipient", "", "a recipient, exact or `pattern`")
	fl.StringVar(&f.domain, "domain", "", "a recipient's domain, exact or `pattern`")
	fl.StringVar(&f.olderThan, "older-than", "", "received at least this `time` ago (90s, 12h, 3d, 2w)")
	fl.StringVar(&f.youngerThan, "younger-than", "", "received at most this `time` ago")
	fl.StringVar(&f.largerThan, "larger-than", "", "larger than this `size` (500, 10KiB, 5MiB)")
	fl.StringVar(&f.smallerThan, "smaller-than", "", "smaller than this `size`")
	fl.StringVar(&f.nextHop, "next-hop", "", "the next hop contains this `text`")
	fl.StringVar(&f.text, "error", "", "the last error contains this `text`")
	fl.IntVar(&f.limit, "limit", 0, "at most this many messages, oldest first")
	if f.forced == "" {
		fl.StringSliceVar(&f.states, "state", nil, "`state`s: queued, active, held, refused")
	}
}

// addAll gives a command that changes things the flag --all.
func addAll(cmd *cobra.Command, f *filters) {
	what := "every message"
	if f.forced != "" {
		what = "every " + string(f.forced) + " message"
	}
	cmd.Flags().BoolVar(&f.all, "all", false, what)
}

// selection builds the selection from flags and arguments. An error is a usage
// error.
func (f *filters) selection(a *app, args []string) (admin.Selection, error) {
	sel := admin.Selection{
		Sender: f.sender, Recipient: f.recipient, Domain: strings.TrimPrefix(f.domain, "@"),
		NextHop: f.nextHop, Error: f.text, Limit: f.limit,
	}
	var errs []error
	ids := slices.Concat(f.ids, args)
	for _, id := range ids {
		if id != "-" {
			sel.IDs = append(sel.IDs, id)
			continue
		}
		read, err := readIDs(a)
		if err != nil {
			errs = append(errs, err)
		}
		sel.IDs = append(sel.IDs, read...)
	}
	if len(ids) > 0 && len(sel.IDs) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("no ids on standard input"))
	}
	for _, p := range []struct {
		flag, text string
		set        func(string) error
	}{
		{"older-than", f.olderThan, func(s string) (err error) { sel.MinAge, err = parseAge(s); return err }},
		{"younger-than", f.youngerThan, func(s string) (err error) { sel.MaxAge, err = parseAge(s); return err }},
		{"larger-than", f.largerThan, func(s string) (err error) { sel.MinBytes, err = parseBytes(s); sel.MinBytes++; return err }},
		{"smaller-than", f.smallerThan, func(s string) (err error) { sel.MaxBytes, err = parseBytes(s); sel.MaxBytes--; return err }},
	} {
		if p.text == "" {
			continue
		}
		if err := p.set(p.text); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", p.flag, err))
		}
	}
	for _, s := range f.states {
		switch st := queue.State(strings.ToLower(s)); st {
		case queue.Queued, queue.Active, queue.Held, queue.Refused:
			sel.States = append(sel.States, st)
		default:
			errs = append(errs, fmt.Errorf("--state: %q is none of queued, active, held, refused", s))
		}
	}
	if f.limit < 0 {
		errs = append(errs, errors.New("--limit: must not be negative"))
	}
	if f.all && !admin.SelectsAll(sel) {
		errs = append(errs, errors.New("--all leaves no room for ids or filters"))
	}
	if len(errs) > 0 {
		return sel, usageError(errors.Join(errs...))
	}
	return sel, nil
}

// force narrows sel to the state the command is about.
func (f *filters) force(sel admin.Selection) admin.Selection {
	if f.forced != "" {
		sel.States = []queue.State{f.forced}
	}
	return sel
}

// required is selection for a command that changes things: everything must be
// meant.
func (f *filters) required(a *app, args []string) (admin.Selection, error) {
	sel, err := f.selection(a, args)
	if err != nil {
		return sel, err
	}
	if admin.SelectsAll(sel) && !f.all {
		return sel, usageError(errors.New("name message ids or filters, or --all"))
	}
	return f.force(sel), nil
}

// readIDs takes the first word of each line of standard input, so that a listing
// can be piped in.
func readIDs(a *app) ([]string, error) {
	var ids []string
	sc := bufio.NewScanner(a.In)
	for sc.Scan() {
		line := sc.Text()
		if words := strings.Fields(line); len(words) > 0 && words[0] != "ID" && words[0] != "--" && line[0] != ' ' {
			ids = append(ids, words[0])
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read ids from standard input: %w", err)
	}
	return ids, nil
}
