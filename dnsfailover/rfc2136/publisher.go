package rfc2136

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/dns"

	"understudy/dnsfailover"
)

// maxApplies is how often a change starts again because the zone changed under it,
// or an answer was lost.
const maxApplies = 3

// Publisher changes records in a zone that does not hold the register. It
// implements dnsfailover.Publisher; Config.Name is the record that notes the epoch.
// All changes are one UPDATE, done whole or not at all.
type Publisher struct {
	link *link
	zone string
	note string
}

var _ dnsfailover.Publisher = (*Publisher)(nil)

// NewPublisher reads the key; it does not connect.
func NewPublisher(c Config, d Deps) (*Publisher, error) {
	a, err := New(c, d)
	if err != nil {
		return nil, err
	}
	return &Publisher{link: a.link, zone: a.zone, note: a.name}, nil
}

// Close ends the connection that is kept for the next question.
func (p *Publisher) Close() { p.link.close() }

// Records implements dnsfailover.Publisher.
func (p *Publisher) Records(ctx context.Context, keys []dnsfailover.RRKey) ([]dnsfailover.RRSet, error) {
	return p.link.records(ctx, keys)
}

// Apply implements dnsfailover.Publisher.
func (p *Publisher) Apply(ctx context.Context, epoch uint64, changes []dnsfailover.RRChange) error {
	var lost error
	for range maxApplies {
		again, err := p.apply(ctx, epoch, changes)
		if !again {
			if lost != nil && errors.Is(err, dnsfailover.ErrUnreachable) {
				return fmt.Errorf("%w: %w", dnsfailover.ErrUnknownOutcome, err)
			}
			return err
		}
		lost = err
	}
	return lost
}

// apply looks at the zone and sends one UPDATE for what is missing. again: look
// once more.
func (p *Publisher) apply(ctx context.Context, epoch uint64, changes []dnsfailover.RRChange) (again bool, err error) {
	text, _, err := p.link.text(ctx, p.note)
	if err != nil {
		return false, fmt.Errorf("read epoch: %w", err)
	}
	if err := dnsfailover.CheckEpochNote(text, epoch); err != nil {
		return false, err
	}
	u := newUpdate(p.zone)
	note := dnsfailover.EpochNote(epoch)
	u.text(p.note, text, note)
	missing := text != note
	for _, c := range changes {
		sets, err := p.link.records(ctx, []dnsfailover.RRKey{c.RRKey})
		if err != nil {
			return false, err
		}
		present := sets[0].Values
		switch {
		case slices.Equal(present, c.New): // done already, whatever its TTL
			err = u.require(c.RRKey, c.New)
		case slices.Equal(present, c.Old):
			missing = true
			err = errors.Join(u.require(c.RRKey, c.Old), u.replace(c))
		default:
			return false, &dnsfailover.ForeignError{Found: sets}
		}
		if err != nil {
			return false, fmt.Errorf("%w: %w", dnsfailover.ErrRefused, err)
		}
	}
	if !missing {
		return false, nil
	}
	if _, err := u.msg.Pack(); err != nil {
		return false, fmt.Errorf("%w: write update: %w", dnsfailover.ErrRefused, err)
	}
	return p.send(ctx, u)
}

func (p *Publisher) send(ctx context.Context, u update) (again bool, err error) {
	reply, err := p.link.change(ctx, u.msg)
	if err == nil {
		err = p.link.verdict(reply, dnsfailover.ErrUnknownOutcome)
	}
	switch {
	case errors.Is(err, dnsfailover.ErrBadKey) || errors.Is(err, dnsfailover.ErrBadTime):
		return false, err
	case err != nil:
		return errors.Is(err, dnsfailover.ErrUnknownOutcome), err
	case reply.Rcode == dns.RcodeSuccess:
		return false, nil
	case prerequisite(reply.Rcode):
		return true, fmt.Errorf("%w: the zone %s changes all the time", dnsfailover.ErrConflict, p.zone)
	}
	return false, fmt.Errorf("%w: %s says %s", dnsfailover.ErrRefused, p.link.server, dns.RcodeToString[reply.Rcode])
}
