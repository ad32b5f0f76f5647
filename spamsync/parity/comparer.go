package parity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Deps is what a Comparer works with.
type Deps struct {
	// URL is this site's normal worker of Rspamd.
	URL string
	// Here and PeerJudge, where they are set, are asked instead of Rspamd: engines
	// named Engine that have no controller. Only Redis, DNS, and what they judge are
	// compared then.
	Here, PeerJudge Judge
	Engine          string
	// Redis and PeerRedis are what both engines read; nil is not looked at.
	Redis, PeerRedis redis.UniversalClient
	// Site and PeerSite are the sites' names, for people.
	Site, PeerSite string
}

// Comparer compares both sites. Its methods may be called concurrently.
type Comparer struct {
	cfg  Config
	deps Deps
	// judges are this site's and the other's; here and peer are the same where they
	// are Rspamd, and nil otherwise.
	judges     [2]Judge
	here, peer *Rspamd
}

// New returns a Comparer. It dials nothing.
func New(cfg Config, deps Deps) (*Comparer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Here != nil && deps.PeerJudge != nil {
		return &Comparer{cfg: cfg, deps: deps, judges: [2]Judge{deps.Here, deps.PeerJudge}}, nil
	}
	if cfg.PeerURL == "" {
		return nil, errors.New("peer_url: is missing; it says where the other site's engine is")
	}
	if deps.URL == "" {
		return nil, errors.New("this site's engine is not known")
	}
	c := &Comparer{cfg: cfg, deps: deps}
	c.here, c.peer = NewRspamd(deps.URL, cfg.Timeout), NewRspamd(cfg.PeerURL, cfg.Timeout)
	c.here.Controller, c.peer.Controller = cfg.controller(), cfg.peerController()
	c.here.PasswordFile, c.peer.PasswordFile = cfg.PasswordFile, cfg.PeerPasswordFile
	if cfg.PeerPasswordFile == "" {
		c.peer.PasswordFile = cfg.PasswordFile
	}
	for _, r := range []*Rspamd{c.here, c.peer} {
		r.Disable = cfg.Disable
	}
	c.judges = [2]Judge{c.here, c.peer}
	return c, nil
}

// Close ends idle connections; the Redis clients stay the caller's.
func (c *Comparer) Close() {
	if c.here == nil {
		return
	}
	c.here.Close()
	c.peer.Close()
}

// Compare compares fingerprints, and the judgements of messages. An error says
// that nothing was compared; the report says what could not be.
func (c *Comparer) Compare(ctx context.Context, messages []Message) (Report, error) {
	started := time.Now()
	r := Report{At: started.UTC(), Site: c.deps.Site, PeerSite: c.deps.PeerSite}
	c.compareEngines(ctx, &r)
	if err := c.compareDNS(ctx, &r); err != nil {
		return r, err
	}
	r.note("redis", c.compareRedis(ctx, &r))
	r.compareClocks(c.cfg.MaxClockOffset)

	before, watched := c.watch(ctx)
	from := time.Now()
	p, err := probe(ctx, c.judges[0], c.judges[1], messages, c.bayesTolerance())
	if err != nil {
		return r, err
	}
	r.Probe = p
	if after, ok := c.watch(ctx); watched && ok {
		r.WriteChecked = true
		for i := range before {
			r.Written = max(r.Written, written(before[i], after[i], time.Since(from)))
		}
	}
	r.Seconds = time.Since(started).Seconds()
	r.conclude()
	return r, nil
}

// compareEngines compares what Rspamd says of itself.
func (c *Comparer) compareEngines(ctx context.Context, r *Report) {
	if c.here == nil {
		r.Here.Engine, r.Peer.Engine = c.deps.Engine, c.deps.Engine
		r.Skipped = append(r.Skipped, "configuration: the other site's engine "+c.deps.Engine+" is taken to be configured as this one")
		return
	}
	r.note("fingerprint", c.compareFingerprints(ctx, r))
	r.note("configuration", c.compareConfiguration(ctx, r))
}

// bayesTolerance is that of Rspamd's classifier; other engines always say the same.
func (c *Comparer) bayesTolerance() float64 {
	if c.here == nil {
		return 0
	}
	return c.cfg.BayesTolerance
}

func (c *Comparer) compareFingerprints(ctx context.Context, r *Report) error {
	var err error
	if r.Here, err = c.here.fingerprint(ctx); err != nil {
		return fmt.Errorf("here: %w", err)
	}
	if r.Peer, err = c.peer.fingerprint(ctx); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	r.Differences = append(r.Differences, r.Here.differ(r.Peer)...)
	r.clocks = append(r.clocks, clock{"rspamd", r.Peer.Clock - r.Here.Clock, time.Second})
	return nil
}

func (c *Comparer) compareDNS(ctx context.Context, r *Report) error {
	if c.cfg.Resolver == "" {
		return nil
	}
	here, peer := dnsView(ctx, c.cfg.Resolver, c.cfg.Names), dnsView(ctx, c.cfg.PeerResolver, c.cfg.Names)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("compare dns: %w", err)
	}
	r.DNS = here
	for _, name := range keys(here, peer) {
		if here[name] != peer[name] {
			r.Differences = append(r.Differences, Difference{Aspect: "dns", Name: name, Here: here[name], Peer: peer[name]})
		}
	}
	return nil
}

// compareRedis looks whether the replica follows, and gives it some time to have
// what its master has.
func (c *Comparer) compareRedis(ctx context.Context, r *Report) error {
	if c.deps.Redis == nil || c.deps.PeerRedis == nil {
		return nil
	}
	views := make([]RedisView, 2)
	var goal int64
	for end := time.Now().Add(catchUp); ; {
		for i, client := range []redis.UniversalClient{c.deps.Redis, c.deps.PeerRedis} {
			v, err := viewRedis(ctx, client)
			if err != nil {
				return fmt.Errorf("%s: %w", []string{"here", "peer"}[i], err)
			}
			views[i] = v
		}
		if goal == 0 {
			goal = max(views[0].Offset, views[1].Offset)
		}
		behind := goal - min(views[0].Offset, views[1].Offset)
		if diffs := differRedis(views[0], views[1]); behind <= 0 || len(diffs) > 0 || time.Now().After(end) {
			r.Differences = append(r.Differences, diffs...)
			if behind > 0 && len(diffs) == 0 {
				r.Differences = append(r.Differences, Difference{
					Aspect: "redis", Name: "replication offset", Here: fmt.Sprint(views[0].Offset), Peer: fmt.Sprint(views[1].Offset),
				})
			}
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("compare redis: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	r.Redis = views
	r.clocks = append(r.clocks, clock{"redis", views[1].Clock - views[0].Clock, 10 * time.Millisecond})
	return nil
}

// watch reads the counters that a write would move; false where there are none.
func (c *Comparer) watch(ctx context.Context) ([]RedisView, bool) {
	var out []RedisView
	for _, client := range []redis.UniversalClient{c.deps.Redis, c.deps.PeerRedis} {
		if client == nil {
			continue
		}
		v, err := viewRedis(ctx, client)
		if err != nil {
			return nil, false
		}
		out = append(out, v)
	}
	return out, len(out) > 0
}
