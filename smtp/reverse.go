package smtp

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// maxNames bounds how many PTR names of one address are tried.
const maxNames = 4

// reverseName is the name of a client, looked up while the session goes on. The
// zero value is a name that was not looked for.
type reverseName struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when name is set and the goroutine has ended
	name   string
}

// start begins the look-up; stop must be called.
func (r *reverseName) start(ctx context.Context, res Resolver, addr netip.Addr, timeout time.Duration) {
	addr = addr.Unmap().WithZone("")
	if res == nil || timeout == 0 || !addr.IsValid() || addr.IsLoopback() {
		return
	}
	ctx, r.cancel = context.WithTimeout(ctx, timeout)
	r.done = make(chan struct{})
	go func() {
		defer close(r.done)
		r.name = confirmedName(ctx, res, addr)
	}()
}

// get waits for the look-up, which its time-out bounds.
func (r *reverseName) get() string {
	if r.done == nil {
		return ""
	}
	<-r.done
	return r.name
}

// peek returns the name if it is known by now.
func (r *reverseName) peek() string {
	if r.done == nil {
		return ""
	}
	select {
	case <-r.done:
		return r.name
	default:
		return ""
	}
}

func (r *reverseName) stop() {
	if r.done != nil {
		r.cancel()
		<-r.done
	}
}

// confirmedName returns the first PTR name of addr that resolves back to it;
// empty where there is none or the resolver does not answer.
func confirmedName(ctx context.Context, res Resolver, addr netip.Addr) string {
	names, err := res.LookupAddr(ctx, addr.String())
	if err != nil {
		return ""
	}
	for _, name := range names[:min(len(names), maxNames)] {
		addrs, err := res.LookupNetIP(ctx, "ip", name)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap().WithZone("") == addr }) {
			return strings.ToLower(strings.TrimSuffix(name, "."))
		}
	}
	return ""
}
