package spamsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// GreylistConfig is the section spam.builtin.greylist.
type GreylistConfig struct {
	Enabled  bool          `key:"enabled" default:"true" doc:"Defer messages in the grey score band once."`
	Delay    time.Duration `key:"delay" default:"5m" doc:"How long a message must have been known before it is let in."`
	Window   time.Duration `key:"window" default:"48h" doc:"How long a deferred message is remembered."`
	Remember time.Duration `key:"remember" default:"840h" doc:"How long a sender that came back is let in without asking."`
	MaxLocal int           `key:"max_local" default:"100000" doc:"Records kept here while the state cannot be written; beyond, nothing is deferred."`
}

// GreyQuestion is who sent what to whom.
type GreyQuestion struct {
	// Domain is the authenticated domain (SPF or DKIM pass); empty where there is none.
	Domain string
	// Addr is the client; its network counts where Domain is empty.
	Addr netip.Addr
	// Sender and Recipients are the envelope's.
	Sender     string
	Recipients []string
}

// who is the sender as far as it can be held to something: a domain, so that all
// machines of a big sender are one; or a network.
func (q GreyQuestion) who() string {
	if q.Domain != "" {
		return "d:" + strings.ToLower(q.Domain)
	}
	return "n:" + Network(q.Addr, 24, 64)
}

// Key names the message, Known the sender that came back.
func (q GreyQuestion) Key() string {
	to := make([]string, len(q.Recipients))
	for i, r := range q.Recipients {
		to[i] = strings.ToLower(r)
	}
	slices.Sort(to)
	return "m:" + digest(append([]string{q.who(), strings.ToLower(q.Sender)}, to...)...)
}

// Known is described at Key.
func (q GreyQuestion) Known() string { return "k:" + digest(q.who()) }

// GreyDecision is what to do with a grey message.
type GreyDecision uint8

// The decisions.
const (
	// GreyPass: it is known for long enough, or its sender is.
	GreyPass GreyDecision = iota
	// GreyNew: not seen before; defer.
	GreyNew
	// GreyEarly: seen, but not long enough ago; defer.
	GreyEarly
)

// DecideGrey is the rule: a message is let in when it comes again after delay
// and within window. The zero first is: never seen.
func DecideGrey(first, now time.Time, delay, window time.Duration) GreyDecision {
	age := now.Sub(first)
	switch {
	case first.IsZero() || age > window:
		return GreyNew
	case age < delay:
		return GreyEarly
	}
	return GreyPass
}

// GreyAnswer is the decision and its reason.
type GreyAnswer struct {
	Decision GreyDecision
	// Wait is how long until the message is let in.
	Wait time.Duration
	// Known says that the sender came back earlier, with whatever message.
	Known bool
	// Local says that the state did not take the record and it is kept here.
	Local bool
}

// Greylist defers what is seen for the first time, and never for ever: a record
// that the state does not take is kept in memory and in a journal, and merged
// later. Its methods may be called concurrently.
type Greylist struct {
	state  State
	config GreylistConfig
	local  *greyLocal
	logger *slog.Logger
}

// NewGreylist returns a greylist over state. journal keeps what state does not
// take over a restart; nil keeps it in memory only.
func NewGreylist(state State, config GreylistConfig, journal *GreyJournal, logger *slog.Logger) *Greylist {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	g := &Greylist{state: state, config: config, local: newGreyLocal(config.MaxLocal), logger: logger}
	if journal != nil {
		g.local.journal = journal
		g.local.load(journal.found)
		journal.found = nil
	}
	return g
}

// Peek answers without remembering anything.
func (g *Greylist) Peek(ctx context.Context, q GreyQuestion, now time.Time) GreyAnswer {
	if first := g.first(ctx, q.Known(), now); !first.IsZero() {
		return GreyAnswer{Known: true}
	}
	first := g.first(ctx, q.Key(), now)
	a := GreyAnswer{Decision: DecideGrey(first, now, g.config.Delay, g.config.Window)}
	switch a.Decision {
	case GreyNew:
		a.Wait = g.config.Delay
	case GreyEarly:
		a.Wait = g.config.Delay - now.Sub(first)
	case GreyPass:
	}
	return a
}

// Check answers and remembers. It has no error: what cannot be read counts as
// not seen, and what can be written nowhere is let in.
func (g *Greylist) Check(ctx context.Context, q GreyQuestion, now time.Time) GreyAnswer {
	a := g.Peek(ctx, q, now)
	switch {
	case a.Decision == GreyNew:
		first, local, err := g.remember(ctx, q.Key(), now, g.config.Window)
		a.Local = local
		if err != nil {
			g.logger.Warn("greylist keeps no more records", "err", err)
			return GreyAnswer{Local: true}
		}
		// The copy that was read may lag behind the one that was written.
		if now.Sub(first) > time.Second && DecideGrey(first, now, g.config.Delay, g.config.Window) == GreyPass {
			return GreyAnswer{}
		}
	case a.Decision == GreyPass && !a.Known:
		// A sender that is not remembered is only asked again.
		_, a.Local, _ = g.remember(ctx, q.Known(), now, g.config.Remember)
	}
	return a
}

// first is the earliest sight of key, here or in the state.
func (g *Greylist) first(ctx context.Context, key string, now time.Time) time.Time {
	first, err := g.state.First(ctx, key)
	if err != nil {
		first = time.Time{}
	}
	if here := g.local.first(key, now); !here.IsZero() && (first.IsZero() || here.Before(first)) {
		return here
	}
	return first
}

func (g *Greylist) remember(ctx context.Context, key string, now time.Time, ttl time.Duration) (first time.Time, local bool, err error) {
	first, err = g.state.Touch(ctx, key, now, ttl)
	if err == nil {
		return first, false, nil
	}
	if !g.local.put(key, greyRecord{first: now, expires: now.Add(ttl)}) {
		return now, true, errors.New("too many local records")
	}
	if err := g.local.write(ctx, key); err != nil {
		g.logger.Warn("greylist record is in memory only", "err", err)
	}
	return now, true, nil
}

// Local is how many records wait here for the state.
func (g *Greylist) Local() int { return g.local.len() }

// Merge gives the local records to the state, oldest first, until it refuses. It
// returns how many it took.
func (g *Greylist) Merge(ctx context.Context, now time.Time) (int, error) {
	merged := 0
	for _, key := range g.local.keys() {
		r, ok := g.local.get(key)
		if !ok {
			continue
		}
		if ttl := r.expires.Sub(now); ttl > 0 {
			if _, err := g.state.Touch(ctx, key, r.first, ttl); err != nil {
				return merged, fmt.Errorf("merge greylist: %w", err)
			}
			merged++
		}
		g.local.drop(key)
	}
	if g.local.journal != nil {
		if err := g.local.journal.compact(ctx, g.local); err != nil {
			return merged, fmt.Errorf("compact greylist journal: %w", err)
		}
	}
	return merged, nil
}

// mergeEvery is how often Run tries to give local records away.
const mergeEvery = 30 * time.Second

// Run writes the journal and merges local records until ctx ends.
func (g *Greylist) Run(ctx context.Context) error {
	done := make(chan error, 1)
	if j := g.local.journal; j != nil {
		go func() { done <- j.log.Run(ctx) }()
	} else {
		close(done)
	}
	tick := time.NewTicker(mergeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return <-done
		case <-tick.C:
			if g.Local() == 0 {
				continue
			}
			if n, err := g.Merge(ctx, time.Now()); err == nil {
				g.logger.Info("local greylist records merged", "records", n)
			}
		}
	}
}
