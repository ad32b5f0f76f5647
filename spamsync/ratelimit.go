package spamsync

import (
	"context"
	"net/netip"
	"strconv"
	"time"
)

// RatelimitConfig is the section spam.builtin.ratelimit.
type RatelimitConfig struct {
	Messages int           `key:"messages" default:"0" doc:"Messages one client (an IPv4 address, an IPv6 /64) may send in a window; 0 is no limit."`
	Window   time.Duration `key:"window" default:"1h" doc:"Length of the window."`
}

// Ratelimit counts what one client sends, at both sites together.
type Ratelimit struct {
	State  State
	Config RatelimitConfig
}

// Rate is what a client sent in the last window.
type Rate struct {
	// Messages is estimated from two fixed windows.
	Messages float64
	// Over says that it is more than allowed.
	Over bool
}

// Look returns the rate of addr, without counting anything.
func (r *Ratelimit) Look(ctx context.Context, addr netip.Addr, now time.Time) (Rate, error) {
	if r.Config.Messages <= 0 {
		return Rate{}, nil
	}
	window := int64(r.Config.Window)
	n, into := now.UnixNano()/window, now.UnixNano()%window
	counts, err := r.State.Counters(ctx, []string{r.key(addr, n-1), r.key(addr, n)})
	if err != nil {
		return Rate{}, err
	}
	rate := float64(counts[0]["n"])*(1-float64(into)/float64(window)) + float64(counts[1]["n"])
	return Rate{Messages: rate, Over: rate >= float64(r.Config.Messages)}, nil
}

// Count counts one message of addr. What was refused for its rate is not counted,
// so that a client that keeps trying gets its share.
func (r *Ratelimit) Count(ctx context.Context, addr netip.Addr, now time.Time) error {
	if r.Config.Messages <= 0 {
		return nil
	}
	n := now.UnixNano() / int64(r.Config.Window)
	return r.State.Add(ctx, []Counter{{Key: r.key(addr, n), Field: "n", Delta: 1, TTL: 2 * r.Config.Window}})
}

func (r *Ratelimit) key(addr netip.Addr, window int64) string {
	return "l:" + Network(addr, 32, 64) + ":" + strconv.FormatInt(window, 10)
}
