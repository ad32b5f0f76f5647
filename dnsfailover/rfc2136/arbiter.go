package rfc2136

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/dns"

	"understudy/dnsfailover"
)

// Arbiter is the register in a zone. It implements dnsfailover.Arbiter.
type Arbiter struct {
	link *link
	zone string
	name string
}

var _ dnsfailover.Arbiter = (*Arbiter)(nil)

// New reads the key; it does not connect.
func New(c Config, d Deps) (*Arbiter, error) {
	l, err := newLink(c, d)
	if err != nil {
		return nil, err
	}
	c = c.withDefaults()
	zone := dns.CanonicalName(c.Zone)
	return &Arbiter{link: l, zone: zone, name: dns.CanonicalName(c.Name + "." + zone)}, nil
}

// Close ends the connection that is kept for the next question.
func (a *Arbiter) Close() { a.link.close() }

// Read implements dnsfailover.Arbiter.
func (a *Arbiter) Read(ctx context.Context) (dnsfailover.Register, error) {
	text, ok, err := a.link.text(ctx, a.name)
	if err != nil {
		return dnsfailover.Register{}, fmt.Errorf("read register: %w", err)
	}
	if !ok {
		return dnsfailover.Register{}, fmt.Errorf("%w: %s has no TXT record", dnsfailover.ErrMissing, a.name)
	}
	r, err := dnsfailover.ParseRegister(text)
	if err != nil {
		return dnsfailover.Register{}, fmt.Errorf("%w: %w", dnsfailover.ErrBadRegister, err)
	}
	return r, nil
}

// Records implements dnsfailover.Arbiter.
func (a *Arbiter) Records(ctx context.Context, keys []dnsfailover.RRKey) ([]dnsfailover.RRSet, error) {
	return a.link.records(ctx, keys)
}

// CompareAndSwap implements dnsfailover.Arbiter. It takes at most three times
// Config.Timeout.
func (a *Arbiter) CompareAndSwap(ctx context.Context, old, new dnsfailover.Register, changes []dnsfailover.RRChange) error {
	u, err := a.build(old, new, changes)
	if err != nil {
		return fmt.Errorf("%w: %w", dnsfailover.ErrRefused, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*a.link.timeout)
	defer cancel()
	sent := false // an earlier attempt may have taken place
	for {
		err := a.attempt(ctx, u, old, new, changes, sent)
		if !errors.Is(err, dnsfailover.ErrUnknownOutcome) {
			if sent && errors.Is(err, dnsfailover.ErrUnreachable) {
				return fmt.Errorf("%w: %w", dnsfailover.ErrUnknownOutcome, err)
			}
			return err
		}
		// The answer was lost: the register itself knows.
		now, readErr := a.Read(ctx)
		switch {
		case readErr == nil && now == new:
			return nil
		case sent, readErr != nil && !errors.Is(readErr, dnsfailover.ErrMissing), now != old:
			return err
		}
		sent = true // once more: the prerequisites let only one of both through
	}
}

func (a *Arbiter) build(old, new dnsfailover.Register, changes []dnsfailover.RRChange) (update, error) {
	u := newUpdate(a.zone)
	if err := new.Validate(); err != nil {
		return u, err
	}
	if old == new {
		return u, errors.New("the new value is the old one")
	}
	u.text(a.name, old.String(), new.String())
	for _, c := range changes {
		if !dns.IsSubDomain(a.zone, dns.CanonicalName(c.Name)) {
			return u, fmt.Errorf("%s is not in the zone %s", c.Name, a.zone)
		}
		if err := errors.Join(u.require(c.RRKey, c.Old), u.replace(c)); err != nil {
			return u, err
		}
	}
	if _, err := u.msg.Pack(); err != nil {
		return u, fmt.Errorf("write update: %w", err)
	}
	return u, nil
}

// attempt sends the UPDATE once and says what its answer means.
func (a *Arbiter) attempt(ctx context.Context, u update, old, new dnsfailover.Register, changes []dnsfailover.RRChange, sent bool) error {
	reply, err := a.link.change(ctx, u.msg)
	if err != nil {
		return err
	}
	if err := a.link.verdict(reply, dnsfailover.ErrUnknownOutcome); err != nil {
		return err
	}
	switch {
	case reply.Rcode == dns.RcodeSuccess:
		return nil
	case prerequisite(reply.Rcode):
		return a.unmet(ctx, old, new, changes, sent)
	case reply.Rcode == dns.RcodeServerFailure:
		return a.failed(ctx, old, new, sent)
	}
	return fmt.Errorf("%w: %s says %s", dnsfailover.ErrRefused, a.link.server, dns.RcodeToString[reply.Rcode])
}

// failed finds out what became of an UPDATE that ended in the middle of something,
// such as a full disk.
func (a *Arbiter) failed(ctx context.Context, old, new dnsfailover.Register, sent bool) error {
	now, err := a.Read(ctx)
	kind := dnsfailover.ErrUnknownOutcome
	switch {
	case err == nil && now == new:
		return nil
	case !sent && now == old && (err == nil || errors.Is(err, dnsfailover.ErrMissing)):
		kind = dnsfailover.ErrRefused
	}
	return fmt.Errorf("%w: %s says SERVFAIL", kind, a.link.server)
}

// unmet finds out which prerequisite was not met. This attempt has changed
// nothing, that much is proven.
func (a *Arbiter) unmet(ctx context.Context, old, new dnsfailover.Register, changes []dnsfailover.RRChange, sent bool) error {
	now, err := a.Read(ctx)
	switch {
	case errors.Is(err, dnsfailover.ErrMissing):
	case err != nil && sent:
		return fmt.Errorf("%w: %w", dnsfailover.ErrUnknownOutcome, err)
	case err != nil:
		return fmt.Errorf("%w, or a record has; it could not be read again: %v", dnsfailover.ErrConflict, err) //nolint:errorlint // only the first is the caller's
	case now == new:
		return nil // an earlier attempt of this very change
	case now != old && sent:
		// The earlier attempt may have won, and somebody else after it.
		return fmt.Errorf("%w: it now holds %q", dnsfailover.ErrUnknownOutcome, now)
	}
	if now != old {
		return fmt.Errorf("%w: it now holds %q", dnsfailover.ErrConflict, now)
	}
	keys := make([]dnsfailover.RRKey, len(changes))
	for i, c := range changes {
		keys[i] = c.RRKey
	}
	sets, err := a.Records(ctx, keys)
	if err != nil {
		return fmt.Errorf("%w: which one could not be read: %v", dnsfailover.ErrForeign, err) //nolint:errorlint // only the first is the caller's
	}
	return foreign(sets, changes, dnsfailover.ErrConflict)
}

// foreign is a *ForeignError that names the sets that are not what a change
// expects; none is otherwise.
func foreign(sets []dnsfailover.RRSet, changes []dnsfailover.RRChange, otherwise error) error {
	var found []dnsfailover.RRSet
	for i, s := range sets {
		if !slices.Equal(s.Values, changes[i].Old) {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return otherwise
	}
	return &dnsfailover.ForeignError{Found: found}
}
