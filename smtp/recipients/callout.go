package recipients

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"understudy/smtp"
)

// maxCalloutTime bounds one callout: a client is waiting.
const maxCalloutTime = 20 * time.Second

// maxCallouts is how many callouts run at the same time.
const maxCallouts = 4

// calloutPause is how long a primary that could not be reached is left alone.
const calloutPause = 15 * time.Second

// calloutAnswer is what the primary says about an address.
type calloutAnswer uint8

const (
	calloutUnsure calloutAnswer = iota
	calloutYes
	calloutNo
)

func (a calloutAnswer) String() string {
	switch a {
	case calloutYes:
		return "yes"
	case calloutNo:
		return "no"
	case calloutUnsure:
	}
	return "unsure"
}

// calloutVerdict is an answer with its age.
type calloutVerdict struct {
	answer calloutAnswer
	asOf   time.Time
	detail string
	// past says that an expired "no" is known: enough for when_stale: exact.
	past bool
}

// asker asks the primary about one address, live.
type asker struct {
	address  string // host:port
	hostname string
	timeout  time.Duration
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	slots    chan struct{}

	mu       sync.Mutex
	pause    time.Time // not before
	lastFail error
}

func newAsker(address, hostname string, timeout time.Duration) *asker {
	if hostname == "" {
		hostname = "localhost"
	}
	return &asker{
		address: address, hostname: hostname, timeout: min(timeout, maxCalloutTime),
		dial: (&net.Dialer{}).DialContext, slots: make(chan struct{}, maxCallouts),
	}
}

// errPaused is returned while an unreachable primary is left alone.
var errPaused = errors.New("primary was not reachable a moment ago")

// ask returns the primary's answer. An error is always with calloutUnsure.
func (k *asker) ask(ctx context.Context, a smtp.Address) (calloutAnswer, string, error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	select {
	case k.slots <- struct{}{}:
		defer func() { <-k.slots }()
	case <-ctx.Done():
		return calloutUnsure, "", fmt.Errorf("wait for a callout: %w", ctx.Err())
	}
	k.mu.Lock()
	paused, last := time.Now().Before(k.pause), k.lastFail
	k.mu.Unlock()
	if paused {
		return calloutUnsure, "", fmt.Errorf("%w: %w", errPaused, last)
	}
	answer, detail, err := k.converse(ctx, a)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lastFail = err; err != nil {
		k.pause = time.Now().Add(calloutPause)
	}
	return answer, detail, err
}

// callout is a source that asks the primary for each address and remembers.
type callout struct {
	cfg     SourceConfig
	rules   rules
	ask     *asker
	cache   *calloutCache
	metrics *metrics
	log     *slog.Logger

	mu     sync.Mutex
	flight map[string]*flight
	err    error
	asked  time.Time
}

// flight is a question several clients wait for.
type flight struct {
	done    chan struct{}
	verdict calloutVerdict
}

func newCallout(sc SourceConfig, r rules, deps Deps, m *metrics) (*callout, error) {
	cache, err := openCalloutCache(deps.FS, deps.Dir, sc.Name, fingerprint(sc, r))
	if err != nil {
		deps.Logger.Warn("recipient cache not read", "source", sc.Name, "err", err)
	}
	return &callout{
		cfg: sc, rules: r, ask: newAsker(sc.Address, deps.Hostname, sc.Timeout), cache: cache,
		metrics: m, log: deps.Logger, flight: make(map[string]*flight),
	}, nil
}

// check answers for one address: from the cache where that is recent, else from
// the primary, else from the cache while it is within its lifetime.
func (c *callout) check(ctx context.Context, a smtp.Address) calloutVerdict {
	key := c.rules.key(a)
	now := time.Now()
	known, ok := c.cache.get(key)
	if ok && now.Sub(known.At) < c.cfg.Interval {
		return calloutVerdict{answer: known.answer(), asOf: known.At, detail: "remembered"}
	}
	live := c.live(ctx, key, a)
	if live.answer != calloutUnsure || !ok {
		return live
	}
	lifetime := c.cfg.Positive
	if !known.Yes {
		lifetime = c.cfg.Negative
	}
	if now.Sub(known.At) < lifetime {
		return calloutVerdict{answer: known.answer(), asOf: known.At, detail: "remembered; " + live.detail}
	}
	return calloutVerdict{answer: calloutUnsure, asOf: known.At, detail: "expired; " + live.detail, past: !known.Yes}
}

// live asks the primary, once for all who ask at the same time.
func (c *callout) live(ctx context.Context, key string, a smtp.Address) calloutVerdict {
	c.mu.Lock()
	if f := c.flight[key]; f != nil {
		c.mu.Unlock()
		select {
		case <-f.done:
			return f.verdict
		case <-ctx.Done():
			return calloutVerdict{detail: ctx.Err().Error()}
		}
	}
	f := &flight{done: make(chan struct{})}
	c.flight[key] = f
	c.mu.Unlock()

	// The first client's end must not take the answer away from the others.
	answer, detail, err := c.ask.ask(context.WithoutCancel(ctx), a)
	f.verdict = calloutVerdict{answer: answer, asOf: time.Now(), detail: detail}
	if err != nil {
		f.verdict.detail = err.Error()
	}
	if answer != calloutUnsure {
		c.cache.put(key, answer == calloutYes, f.verdict.asOf)
	}
	c.metrics.callout.WithLabelValues(answer.String()).Inc()
	c.mu.Lock()
	delete(c.flight, key)
	changed := (c.err == nil) != (err == nil)
	c.err, c.asked = err, f.verdict.asOf
	c.mu.Unlock()
	if changed && err != nil {
		c.log.Warn("recipient callout failed", "source", c.cfg.Name, "err", err)
	}
	close(f.done)
	return f.verdict
}

// Accepted tells the callouts that the primary took mail for address: the best
// positive answer there is.
func (d *Directory) Accepted(address string) {
	a, err := smtp.ParseAddress(address)
	if err != nil || a.Domain == "" {
		return
	}
	for _, c := range d.callouts {
		c.cache.put(c.rules.key(a), true, time.Now())
	}
}

// run keeps the cache on disk until ctx ends.
func (c *callout) run(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		}
		c.cache.expire(time.Now().Add(-2 * max(c.cfg.Positive, c.cfg.Negative)))
		if err := c.cache.save(); err != nil {
			c.log.Warn("recipient cache not written", "source", c.cfg.Name, "err", err)
		}
	}
}

func (c *callout) status(now time.Time) SourceStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := SourceStatus{Name: c.cfg.Name, Kind: c.cfg.Kind, Entries: c.cache.len(), Asked: c.asked, Fresh: c.err == nil}
	if c.err != nil {
		st.Error = c.err.Error()
	} else if !c.asked.IsZero() {
		st.AsOf = c.asked
		st.AgeSeconds = now.Sub(c.asked).Seconds()
	}
	return st
}

func (ex *Explanation) callout(c *callout, v calloutVerdict) {
	if ex == nil {
		return
	}
	sa := SourceAnswer{Name: c.cfg.Name, Kind: c.cfg.Kind, Answer: v.answer.String(), AsOf: v.asOf, Fresh: v.answer != calloutUnsure, Detail: v.detail}
	if !v.asOf.IsZero() {
		sa.AgeSeconds = time.Since(v.asOf).Seconds()
	}
	ex.Sources = append(ex.Sources, sa)
}
