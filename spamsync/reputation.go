package spamsync

import (
	"context"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ReputationConfig is the section spam.builtin.reputation.
type ReputationConfig struct {
	Enabled  bool          `key:"enabled" default:"true" doc:"Remember how domains and networks behaved."`
	HalfLife time.Duration `key:"half_life" default:"168h" doc:"Time after which a message counts half, in whole days."`
	Keep     time.Duration `key:"keep" default:"960h" doc:"How long a sender that is silent is remembered."`
}

// day is the grain of reputation: within one, age does not matter.
const day = 24 * time.Hour

// halfTrust is how many messages give half of the full weight.
const halfTrust = 8

// Reputation remembers how senders behaved: messages of either class a day, which
// fade exponentially. Only whole days matter, so that two sites whose clocks
// differ a little agree.
type Reputation struct {
	State  State
	Config ReputationConfig
}

// Standing is how a sender behaved: faded numbers of messages.
type Standing struct {
	Spam, Ham float64
}

// Score is from -1 (only ham) to 1 (only spam), near 0 where little is known.
func (s Standing) Score() float64 {
	return math.Round((s.Spam-s.Ham)/(s.Spam+s.Ham+halfTrust)*1e4) / 1e4
}

// Known reports whether the sender was seen at all.
func (s Standing) Known() bool { return s.Spam+s.Ham > 0 }

// DomainKey and NetworkKey name what has a reputation: an authenticated domain,
// and the client's /24 or /64.
func (*Reputation) DomainKey(domain string) string { return "r:d:" + strings.ToLower(domain) }

// NetworkKey is described at DomainKey.
func (*Reputation) NetworkKey(addr netip.Addr) string { return "r:n:" + Network(addr, 24, 64) }

// Look returns the standing of each key, in order.
func (r *Reputation) Look(ctx context.Context, now time.Time, keys ...string) ([]Standing, error) {
	groups, err := r.State.Counters(ctx, keys)
	if err != nil {
		return nil, err
	}
	today := now.Unix() / int64(day/time.Second)
	out := make([]Standing, len(groups))
	for i, g := range groups {
		// In a fixed order: sums of floats depend on it.
		for _, field := range slices.Sorted(maps.Keys(g)) {
			if len(field) < 2 {
				continue
			}
			on, err := strconv.ParseInt(field[1:], 10, 64)
			if err != nil {
				continue
			}
			age := float64(max(today-on, 0)) * float64(day)
			n := float64(max(g[field], 0)) * math.Exp2(-age/float64(r.Config.HalfLife))
			switch field[:1] {
			case fieldSpam:
				out[i].Spam += n
			case fieldHam:
				out[i].Ham += n
			}
		}
	}
	return out, nil
}

// Note counts a message of class for every key.
func (r *Reputation) Note(ctx context.Context, now time.Time, class Class, keys ...string) error {
	field := fieldHam
	if class == Spam {
		field = fieldSpam
	}
	field += strconv.FormatInt(now.Unix()/int64(day/time.Second), 10)
	changes := make([]Counter, 0, len(keys))
	for _, k := range keys {
		changes = append(changes, Counter{Key: k, Field: field, Delta: 1, TTL: r.Config.Keep})
	}
	return r.State.Add(ctx, changes)
}
