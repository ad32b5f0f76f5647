package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"understudy/dnsfailover"
)

// How often the listeners are looked at, and how long they stay shut, and then
// open, while the site stays sick: a probe of what is behind a shut listener can
// never succeed.
const (
	lookAtDoors = 200 * time.Millisecond
	shutDoors   = time.Minute
)

// doors are the listeners for clients from outside. An active site that is sick
// shuts them while it cannot hand over: a refused connection sends a client to
// the other site at once, DNS takes its time.
type doors struct {
	alarms interface {
		Raise(key, text string)
		Clear(key string)
	}
	mu    sync.Mutex
	all   []*door
	since time.Time // of the last change
	shut  bool
}

// door is a net.Listener whose address can be given up and taken again while
// Accept waits.
type door struct {
	listen func() (net.Listener, error)
	addr   net.Addr

	mu     sync.Mutex
	l      net.Listener  // nil while shut
	change chan struct{} // closed when l or closed changes
	closed bool
}

// Listen opens an address behind a door.
func (ds *doors) Listen(ctx context.Context, lc net.ListenConfig, address string) (net.Listener, error) {
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	again := l.Addr().String()
	d := &door{l: l, addr: l.Addr(), change: make(chan struct{}), listen: func() (net.Listener, error) {
		return lc.Listen(context.WithoutCancel(ctx), "tcp", again)
	}}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.all = append(ds.all, d)
	return d, nil
}

// Accept waits for a client, also while the door is shut.
func (d *door) Accept() (net.Conn, error) {
	for {
		d.mu.Lock()
		l, change, closed := d.l, d.change, d.closed
		d.mu.Unlock()
		switch {
		case closed:
			return nil, net.ErrClosed
		case l == nil:
			<-change
			continue
		}
		nc, err := l.Accept()
		if err != nil && errors.Is(err, net.ErrClosed) {
			continue // shut or closed: the loop sees which
		}
		return nc, err
	}
}

// Addr is the address also while the door is shut.
func (d *door) Addr() net.Addr { return d.addr }

// Close ends Accept for good.
func (d *door) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	return d.set(nil)
}

// set puts another listener in the place of l. The caller holds mu.
func (d *door) set(l net.Listener) error {
	old := d.l
	d.l = l
	close(d.change)
	d.change = make(chan struct{})
	if old != nil {
		return old.Close()
	}
	return nil
}

// turn shuts or opens the door; twice is as good as once.
func (d *door) turn(shut bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || shut == (d.l == nil) {
		return nil
	}
	if shut {
		return d.set(nil)
	}
	l, err := d.listen()
	if err != nil {
		return err
	}
	return d.set(l)
}

// turn shuts or opens all; what could not be opened is tried again by the next call.
func (ds *doors) turn(shut bool, now time.Time) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if shut != ds.shut {
		ds.shut, ds.since = shut, now
	}
	var errs []error
	for _, d := range ds.all {
		if err := d.turn(shut); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.addr, err))
		}
	}
	return errors.Join(errs...)
}

// isShut says whether no client is taken at the moment.
func (ds *doors) isShut() bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.shut
}

// sick says whether clients are better off with the other site: this one is
// active and failed its own verdict, would hand over by itself, and the other
// one is there and not sick. A standby and a fenced site always take mail.
func sick(s dnsfailover.Snapshot) bool {
	return s.Role == dnsfailover.Active.String() && s.Self.Failed && s.Mode == dnsfailover.Automatic && !s.Paused &&
		s.Link && s.Heard && !s.Peer.Sick
}

// want says whether the doors should be shut now.
func (ds *doors) want(s dnsfailover.Snapshot, now time.Time) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	switch {
	case !sick(s):
		return false
	case ds.since.IsZero() || now.Sub(ds.since) < shutDoors:
		return ds.shut || ds.since.IsZero()
	}
	return !ds.shut
}

// look acts on what is known of this site.
func (ds *doors) look(s dnsfailover.Snapshot, now time.Time) {
	shut := ds.want(s, now)
	err := ds.turn(shut, now)
	switch {
	case err != nil:
		ds.alarms.Raise("listeners", "not all listeners could be turned: "+err.Error())
	case shut:
		ds.alarms.Raise("listeners", "no client is taken here while this active site is sick: "+s.Self.Reason)
	default:
		ds.alarms.Clear("listeners")
	}
}

// watchDoors looks until ctx ends.
func (d *Daemon) watchDoors(ctx context.Context) error {
	tick := time.NewTicker(lookAtDoors)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			d.doors.look(d.failover.Snapshot(), now)
		}
	}
}
