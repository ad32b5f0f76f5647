package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"understudy/smtp/queue"
)

func newQueueStatsCommand(q *queueCommand) *cobra.Command {
	var (
		asJSON bool
		top    int
	)
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Count the queue by state, domain and age",
		Long: `stats prints the totals, the disk, and a table of open recipients by domain
(rows) and age (columns, each up to the time in its head; empty ones are left
out). Numbers that grow at the right are mail that does not get through.`,
		Example: `  understudy queue stats
  understudy queue stats --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := q.online(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			st, err := c.Stats(cmd.Context())
			if err != nil {
				return q.explain(c, err)
			}
			if asJSON {
				return q.a.printDaemonJSON(st)
			}
			q.a.printStats(&st, top)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&top, "top", 20, "show at most this many domains (0: all)")
	return cmd
}

func (a *app) printStats(st *queue.Stats, top int) {
	a.printf("%s\n", totalsLine(st))
	if st.DiskBytes > 0 || st.FreeBytes > 0 {
		a.printf("disk: %s used, %s free, %s of that kept in reserve\n",
			humanBytes(st.DiskBytes), humanBytes(st.FreeBytes), humanBytes(st.ReserveBytes))
	}
	if len(st.Domains) == 0 {
		return
	}
	rows := st.Domains
	if top > 0 && len(rows) > top {
		rows = rows[:top]
	}
	nameW := len("DOMAIN")
	for _, r := range rows {
		nameW = max(nameW, len(clip(safe(r.Domain), 32)))
	}
	cols := usedColumns(st)
	a.printf("\n%s %7s", pad("DOMAIN", nameW), "TOTAL")
	for _, c := range cols {
		head := "older"
		if c < len(st.AgeBounds) {
			head = columnHead(st.AgeBounds[c])
		}
		a.printf(" %6s", head)
	}
	a.printf("\n")
	a.printRow("TOTAL", nameW, st.Total, cols)
	for _, r := range rows {
		a.printRow(clip(safe(r.Domain), 32), nameW, r, cols)
	}
	if n := len(st.Domains) - len(rows); n > 0 {
		a.printf("and %s more (--top 0 shows all)\n", plural(n, "domain"))
	}
}

// usedColumns are those that have mail.
func usedColumns(st *queue.Stats) []int {
	var cols []int
	for i, n := range st.Total.Ages {
		if n > 0 {
			cols = append(cols, i)
		}
	}
	return cols
}

func (a *app) printRow(name string, width int, r queue.DomainStats, cols []int) {
	a.printf("%s %7d", pad(name, width), r.Total)
	for _, c := range cols {
		n := 0
		if c < len(r.Ages) {
			n = r.Ages[c]
		}
		a.printf(" %6d", n)
	}
	a.printf("\n")
}

// columnHead is an age bound in at most four columns: "5m", "1h", "3d".
func columnHead(d time.Duration) string {
	switch {
	case d >= 24*time.Hour && d%(24*time.Hour) == 0:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	case d >= time.Hour && d%time.Hour == 0:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d >= time.Minute:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	}
	return strconv.Itoa(int(d/time.Second)) + "s"
}

// totalsLine is "3 messages, 12K, 4 recipients: 2 queued, 1 held; oldest 3h".
func totalsLine(st *queue.Stats) string {
	if st.Messages == 0 {
		return "the queue is empty"
	}
	var states []string
	for _, s := range []queue.State{queue.Queued, queue.Active, queue.Held, queue.Refused} {
		if n := st.States[s].Messages; n > 0 {
			states = append(states, fmt.Sprintf("%d %s", n, s))
		}
	}
	text := fmt.Sprintf("%s, %s, %s: %s", plural(st.Messages, "message"), humanBytes(st.Bytes),
		plural(st.Recipients, "open recipient"), strings.Join(states, ", "))
	if !st.Oldest.IsZero() {
		text += "; oldest " + humanAge(time.Since(st.Oldest))
	}
	return text
}

// compactJSON is v on one line with a line feed.
func compactJSON(v any) ([]byte, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode json: %w", err)
	}
	return []byte(b.String()), nil
}
