package hosted

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libdns/libdns"

	"understudy/dnsfailover"
)

// Publisher implements dnsfailover.Publisher over a libdns provider.
type Publisher struct {
	api     provider
	name    string // of the provider, for people
	zone    string // ends in a dot
	note    string // relative
	timeout time.Duration
	whole   bool // SetRecords replaces sets of several values

	mu sync.Mutex // one Apply at a time
}

var _ dnsfailover.Publisher = (*Publisher)(nil)

// New reads the token; it asks nobody.
func New(c Config) (*Publisher, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	api, err := c.open()
	if err != nil {
		return nil, err
	}
	return open(c, api), nil
}

func open(c Config, api provider) *Publisher {
	return &Publisher{
		api: api, name: c.Provider, zone: dnsfailover.CanonicalName(c.Zone), note: c.Name, timeout: c.Timeout,
		whole: c.Whole(),
	}
}

// Records implements dnsfailover.Publisher.
func (p *Publisher) Records(ctx context.Context, keys []dnsfailover.RRKey) ([]dnsfailover.RRSet, error) {
	all, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	return all.sets(p.zone, keys), nil
}

// Apply implements dnsfailover.Publisher. Changes are made one by one.
func (p *Publisher) Apply(ctx context.Context, epoch uint64, changes []dnsfailover.RRChange) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range changes {
		if err := p.fit(c); err != nil {
			return fmt.Errorf("%w: %w", dnsfailover.ErrRefused, err)
		}
	}
	all, err := p.read(ctx)
	if err != nil {
		return err
	}
	note := all.text(p.note)
	if err := dnsfailover.CheckEpochNote(note, epoch); err != nil {
		return err
	}
	// Everything is looked at before anything is changed.
	if _, err := all.due(p.zone, changes); err != nil {
		return err
	}
	if want := dnsfailover.EpochNote(epoch); note != want {
		if err := p.write(ctx, libdns.TXT{Name: p.note, TTL: time.Minute, Text: want}); err != nil {
			return err
		}
	}
	for _, c := range changes {
		if err := p.change(ctx, epoch, c); err != nil {
			return err
		}
	}
	return nil
}

// change looks at one record, changes it, and looks again.
func (p *Publisher) change(ctx context.Context, epoch uint64, c dnsfailover.RRChange) error {
	all, err := p.read(ctx)
	if err != nil {
		return err
	}
	if err := dnsfailover.CheckEpochNote(all.text(p.note), epoch); err != nil {
		return err
	}
	one := []dnsfailover.RRChange{c}
	due, err := all.due(p.zone, one)
	if err != nil || len(due) == 0 {
		return err
	}
	records := make([]libdns.Record, len(c.New))
	for i, v := range c.New {
		rr := libdns.RR{Name: libdns.RelativeName(c.Name, p.zone), TTL: c.TTL, Type: c.Type, Data: v}
		if records[i], err = rr.Parse(); err != nil {
			return fmt.Errorf("%w: %w", dnsfailover.ErrRefused, err)
		}
	}
	if err := p.write(ctx, records...); err != nil {
		return err
	}
	if all, err = p.read(ctx); err != nil {
		return fmt.Errorf("%w: %w", dnsfailover.ErrUnknownOutcome, err)
	}
	if got := all.sets(p.zone, []dnsfailover.RRKey{c.RRKey})[0]; !slices.Equal(got.Values, c.New) {
		return fmt.Errorf("%w: %s took the change of %s and shows %s", dnsfailover.ErrUnknownOutcome, p.name, c.RRKey, strings.Join(got.Values, ", "))
	}
	return nil
}

// fit says what a change has that this provider's library cannot do.
func (p *Publisher) fit(c dnsfailover.RRChange) error {
	switch {
	case !(Config{Zone: p.zone}).Holds(c.Name):
		return fmt.Errorf("%s is not in the zone %s", c.Name, p.zone)
	case len(c.New) == 0:
		return fmt.Errorf("%s would become empty", c.RRKey)
	case !p.whole && (len(c.New) > 1 || len(c.Old) > 1):
		return fmt.Errorf("%s: sets of several values cannot be replaced at %s", c.RRKey, p.name)
	}
	return nil
}

func (p *Publisher) read(ctx context.Context) (zone, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", dnsfailover.ErrUnreachable, err)
	}
	all, err := p.api.GetRecords(ctx, p.zone)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", dnsfailover.ErrUnreachable, p.name, err)
	}
	return all, nil
}

func (p *Publisher) write(ctx context.Context, records ...libdns.Record) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if _, err := p.api.SetRecords(ctx, p.zone, records); err != nil {
		return fmt.Errorf("%w: %s: %w", dnsfailover.ErrUnknownOutcome, p.name, err)
	}
	return nil
}

// zone is all records of a zone as the API gives them.
type zone []libdns.Record

// sets picks record sets, in the form of dnsfailover.
func (z zone) sets(origin string, keys []dnsfailover.RRKey) []dnsfailover.RRSet {
	out := make([]dnsfailover.RRSet, len(keys))
	for i, k := range keys {
		out[i].RRKey = k
		for _, r := range z {
			rr := r.RR()
			name := dnsfailover.CanonicalName(libdns.AbsoluteName(rr.Name, origin))
			if name != dnsfailover.CanonicalName(k.Name) || rr.Type != k.Type && rr.Type != "CNAME" {
				continue
			}
			v, err := dnsfailover.Canonical(rr.Type, rr.Data)
			if err != nil { // a CNAME, or a value that equals none of ours
				v = rr.Type + " " + rr.Data
			}
			out[i].TTL = rr.TTL
			out[i].Values = append(out[i].Values, v)
		}
		slices.Sort(out[i].Values)
	}
	return out
}

// text is the one TXT record at a name relative to the zone.
func (z zone) text(name string) string {
	var all []string
	for _, r := range z {
		if rr := r.RR(); strings.EqualFold(rr.Name, name) && rr.Type == "TXT" {
			all = append(all, strings.Trim(rr.Data, `"`)) // some hosts show the quotes
		}
	}
	return strings.Join(all, " ")
}

// due are the changes that are not made yet. Errors: a *ForeignError.
func (z zone) due(origin string, changes []dnsfailover.RRChange) ([]dnsfailover.RRChange, error) {
	var due []dnsfailover.RRChange
	var found []dnsfailover.RRSet
	for _, c := range changes {
		set := z.sets(origin, []dnsfailover.RRKey{c.RRKey})[0]
		switch {
		case slices.Equal(set.Values, c.New):
		case slices.Equal(set.Values, c.Old):
			due = append(due, c)
		default:
			found = append(found, set)
		}
	}
	if len(found) > 0 {
		return nil, &dnsfailover.ForeignError{Found: found}
	}
	return due, nil
}
