package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"understudy/internal/config"
	"understudy/smtp"
	"understudy/smtp/auth"
	"understudy/spamsync"
	"understudy/spamsync/engine"
	"understudy/spamsync/engine/builtin"
	"understudy/spamsync/parity"
)

// OpenParity returns what compares both sites of cfg, and what closes it. The
// other site's Rspamd is asked itself; the builtin filter runs here, once over each
// site's Redis. It needs no running daemon.
func OpenParity(cfg config.Config) (*parity.Comparer, func() error, error) {
	return openParity(cfg, net.DefaultResolver)
}

func openParity(cfg config.Config, resolver auth.Resolver) (*parity.Comparer, func() error, error) {
	var closers closing
	c, err := buildComparer(cfg, resolver, &closers)
	if err != nil {
		return nil, nil, errors.Join(err, closers.close())
	}
	closers = append(closers, func() error { c.Close(); return nil })
	return c, closers.close, nil
}

// closing is what is closed, the last first.
type closing []func() error

func (c closing) close() error {
	var errs []error
	for _, f := range slices.Backward(c) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func buildComparer(cfg config.Config, resolver auth.Resolver, closers *closing) (*parity.Comparer, error) {
	s := cfg.Spam
	deps := parity.Deps{URL: s.EngineURL(), Site: cfg.Site, PeerSite: cfg.Peer()}
	switch s.Engine.Engine {
	case engine.Rspamd:
		if s.Parity.PeerURL == "" {
			return nil, errors.New("spam.parity.peer_url: is missing; it says where the other site's Rspamd is")
		}
	case engine.Builtin:
		if s.Redis.Address == "" || s.Redis.Peer == "" {
			return nil, errors.New("spam.redis: address and peer are needed to compare the builtin filter")
		}
		deps.Engine = builtin.Engine
		var err error
		if deps.Here, deps.PeerJudge, err = builtinJudges(cfg, resolver, closers); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("spam.engine: %s cannot be compared, only rspamd and builtin can", s.Engine.Engine)
	}
	if s.Redis.Address != "" && s.Redis.Peer != "" {
		here, err := spamsync.OpenClient(s.Redis.RedisConfig, s.Redis.Address)
		if err != nil {
			return nil, fmt.Errorf("spam.redis.%w", err)
		}
		*closers = append(*closers, here.Close)
		peer, err := spamsync.OpenClient(s.Redis.RedisConfig, s.Redis.Peer)
		if err != nil {
			return nil, fmt.Errorf("spam.redis.%w", err)
		}
		*closers = append(*closers, peer.Close)
		deps.Redis, deps.PeerRedis = here, peer
	}
	c, err := parity.New(s.Parity, deps)
	if err != nil {
		return nil, fmt.Errorf("spam.parity.%w", err)
	}
	return c, nil
}

// builtinJudges are this site's builtin filter over its own Redis, and over the
// other site's. Both have one clock that stands still and one cache of DNS, so that
// nothing but what Redis holds can make them differ.
func builtinJudges(cfg config.Config, resolver auth.Resolver, closers *closing) (here, peer parity.Judge, err error) {
	cached := auth.NewCache(resolver, cfg.Spam.Builtin.DNSCache)
	now := time.Now()
	open := func(address string) (parity.Judge, error) {
		redis := cfg.Spam.Redis.RedisConfig
		redis.Address = address
		state, closeState, err := spamsync.OpenRedis(redis)
		if err != nil {
			return nil, fmt.Errorf("spam.redis.%w", err)
		}
		*closers = append(*closers, closeState)
		readOnly := parity.NewReadOnly(state)
		deps := builtin.Deps{
			Hostname: cfg.SMTP.Hostname, Domains: cfg.Domains, State: readOnly, Resolver: cached, Now: func() time.Time { return now },
		}
		if cfg.Spam.Builtin.Greylist.Enabled {
			deps.Greylist = spamsync.NewGreylist(readOnly, cfg.Spam.Builtin.Greylist, nil, nil)
		}
		filter, err := builtin.New(cfg.Spam.Builtin, deps)
		if err != nil {
			return nil, fmt.Errorf("spam.builtin.%w", err)
		}
		return &builtinJudge{filter: filter, state: readOnly, now: now}, nil
	}
	if here, err = open(cfg.Spam.Redis.Address); err != nil {
		return nil, nil, err
	}
	peer, err = open(cfg.Spam.Redis.Peer)
	return here, peer, err
}

// builtinJudge judges with the builtin filter, and changes nothing.
type builtinJudge struct {
	filter *builtin.Filter
	state  *parity.ReadOnly
	now    time.Time
}

var _ parity.Judge = (*builtinJudge)(nil)

// Judge implements parity.Judge. A state that does not answer is an error: the
// filter would go on without it, and both sites without their memory are alike.
func (b *builtinJudge) Judge(ctx context.Context, m parity.Message) (parity.Judgement, error) {
	env := &smtp.Envelope{
		ID: m.Name, Received: b.now, Sender: m.Sender, Recipients: []smtp.Recipient{{Address: m.Recipient}},
		Client: smtp.Client{Addr: netip.AddrPortFrom(m.Client, 25), HELO: m.HELO, ReverseName: m.ReverseName},
	}
	failed := b.state.Failed()
	r, err := b.filter.Explain(ctx, env, bytes.NewReader(m.Raw))
	if err != nil {
		return parity.Judgement{}, fmt.Errorf("judge with the builtin filter: %w", err)
	}
	if b.state.Failed() != failed {
		return parity.Judgement{}, fmt.Errorf("judge with the builtin filter: %w", spamsync.ErrAway)
	}
	v := r.Verdict
	j := parity.Judgement{
		Action: answerTo(v).Action, Score: v.Score, Required: v.Required, Text: v.Text, Symbols: make(map[string]parity.Symbol, len(r.Findings)),
	}
	for _, f := range r.Findings {
		j.Symbols[f.Name] = parity.Symbol{Score: f.Score, Options: []string{f.Why}}
	}
	return j, nil
}
