package imapsync

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Comparison is both sides of an account, compared.
type Comparison struct {
	Folders     int          `json:"folders"`
	Messages    int          `json:"messages"` // of the side that has more
	Differences []Difference `json:"differences"`
}

// Difference is one thing that is not equal.
type Difference struct {
	Folder string `json:"folder"`
	// Kind is "folder" (only on one side), "message" (one side has fewer copies of
	// it), "flags", "date", "subscription", "special-use" or "unreadable".
	Kind string `json:"kind"`
	// Side is where something is missing or, for flags and the like, side B.
	Side Side   `json:"side"`
	Text string `json:"text"`
}

// String is one line for people.
func (d Difference) String() string {
	return fmt.Sprintf("%s: %s: %s", d.Folder, d.Kind, d.Text)
}

// Compare reads every folder of both sides whole and compares messages as
// multisets by content, with their flags and dates. It uses no base and writes
// nothing.
func Compare(ctx context.Context, sides Sides, cfg Config) (Comparison, error) {
	exclude, err := compileGlobs(cfg.Exclude)
	if err != nil {
		return Comparison{}, err
	}
	f := filter{exclude: exclude, foreign: cfg.Foreign}
	var boxes [2]map[string]Box
	var mail [2]map[string]Delta
	group, ctx := errgroup.WithContext(ctx)
	for s, store := range [2]Store{sides.A, sides.B} {
		group.Go(func() error {
			var err error
			if boxes[s], mail[s], err = readAll(ctx, store, f); err != nil {
				return fmt.Errorf("side %s: %w", Side(s), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Comparison{}, err
	}
	out := Comparison{Differences: []Difference{}}
	names := maps.Clone(boxes[A])
	maps.Copy(names, boxes[B])
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out.Folders++
		out.folder(name, boxes, mail)
	}
	return out, nil
}

// readAll reads every folder of one side.
func readAll(ctx context.Context, store Store, f filter) (map[string]Box, map[string]Delta, error) {
	listing, err := store.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	boxes, mail := map[string]Box{}, map[string]Delta{}
	var since []Since
	for _, b := range listing.Boxes {
		if !f.wants(b) || b.NoSelect {
			continue
		}
		boxes[b.Name] = b
		since = append(since, Since{Box: b.Name, Keys: true})
	}
	deltas, err := store.Changes(ctx, since)
	if err != nil {
		return nil, nil, err
	}
	for i, d := range deltas {
		mail[since[i].Box] = d
	}
	return boxes, mail, nil
}

// folder compares one folder.
func (c *Comparison) folder(name string, boxes [2]map[string]Box, mail [2]map[string]Delta) {
	add := func(kind string, side Side, format string, args ...any) {
		c.Differences = append(c.Differences, Difference{Folder: name, Kind: kind, Side: side, Text: fmt.Sprintf(format, args...)})
	}
	var there [2]bool
	for s := range there {
		_, there[s] = boxes[s][name]
		if d := mail[s][name]; d.Err != nil {
			add("unreadable", Side(s), "side %s: %v", Side(s), d.Err)
			return
		}
	}
	c.Messages += max(len(mail[A][name].Messages), len(mail[B][name].Messages))
	if !there[A] || !there[B] {
		missing := B
		if !there[A] {
			missing = A
		}
		add("folder", missing, "is missing at side %s; the other has %d messages in it", missing, len(mail[missing.Other()][name].Messages))
		return
	}
	a, b := boxes[A][name], boxes[B][name]
	if a.Subscribed != b.Subscribed {
		add("subscription", B, "a %t, b %t", a.Subscribed, b.Subscribed)
	}
	if a.Use != b.Use {
		add("special-use", B, "a %q, b %q", a.Use, b.Use)
	}
	left, right := byKey(mail[A][name].Messages), byKey(mail[B][name].Messages)
	keys := maps.Clone(left)
	maps.Copy(keys, right)
	for _, key := range slices.SortedFunc(maps.Keys(keys), func(x, y Key) int { return strings.Compare(x.String(), y.String()) }) {
		l, r := left[key], right[key]
		switch {
		case len(l) > len(r):
			// Which copy is the one that is missing, nobody can say: their flags are not compared.
			add("message", B, "%d of %d copies are missing at side b: %s", len(l)-len(r), len(l), describeMessage(l[0]))
			continue
		case len(r) > len(l):
			add("message", A, "%d of %d copies are missing at side a: %s", len(r)-len(l), len(r), describeMessage(r[0]))
			continue
		}
		for i := range l {
			if !l[i].Flags.Equal(r[i].Flags) {
				add("flags", B, "a (%s), b (%s): %s", l[i].Flags, r[i].Flags, describeMessage(l[i]))
			}
			if !l[i].Date.Equal(r[i].Date) {
				add("date", B, "a %s, b %s: %s", l[i].Date.Format(time.RFC3339), r[i].Date.Format(time.RFC3339), describeMessage(l[i]))
			}
		}
	}
}

// byKey groups messages by content; equal ones in an order that does not depend
// on their UIDs.
func byKey(list []Message) map[Key][]Message {
	out := map[Key][]Message{}
	for _, m := range list {
		out[m.Key] = append(out[m.Key], m)
	}
	for _, same := range out {
		slices.SortFunc(same, func(x, y Message) int {
			return cmp.Or(x.Date.Compare(y.Date), strings.Compare(strings.ToLower(x.Flags.String()), strings.ToLower(y.Flags.String())))
		})
	}
	return out
}

func describeMessage(m Message) string {
	return fmt.Sprintf("UID %d, %d bytes of %s", m.UID, m.Size, m.Date.Format("2006-01-02 15:04"))
}
