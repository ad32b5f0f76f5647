package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// controlsKept bounds RPC connections: one in each direction, and one more of
// each while a broken one has not been noticed yet.
const controlsKept = 4

// callsAtOnce bounds the questions of the other site that are worked on.
const callsAtOnce = 64

// control is one RPC connection. Its reader is the goroutine that made it.
type control struct {
	link    *Link
	conn    *Conn
	version int
	calls   chan struct{} // one for each question being worked on

	wmu sync.Mutex // held while a frame is written

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan *message // calls without an answer
	pings   map[uint64]time.Time
	ended   bool
}

// serveControl is the ConnHandler of RPC.
func (l *Link) serveControl(ctx context.Context, c *Conn) {
	if err := l.runControl(ctx, c); err != nil && ctx.Err() == nil {
		l.log.Info("rpc connection ended", "inbound", c.inbound, "err", err)
	}
}

// keepControl dials an RPC connection, and dials again when it ends.
func (l *Link) keepControl(ctx context.Context) {
	backoff := newBackoff()
	for {
		c, err := l.dialAddress(ctx, RPC)
		if err == nil {
			began := time.Now()
			err = l.runControl(ctx, c)
			if time.Since(began) > 10*time.Second {
				backoff.reset()
			}
		}
		if ctx.Err() != nil {
			return
		}
		l.fault(err)
		if !backoff.wait(ctx) {
			return
		}
	}
}

// fault remembers why there is no connection, and logs it when it is new.
func (l *Link) fault(err error) {
	if err == nil {
		err = errors.New("the other site closed the connection")
	}
	l.mu.Lock()
	known := l.lastFault == err.Error()
	l.lastFault = err.Error()
	l.mu.Unlock()
	if !known {
		l.log.Warn("no rpc connection to the other site", "err", err)
	}
}

// runControl exchanges greetings and messages until the connection ends.
func (l *Link) runControl(ctx context.Context, c *Conn) error {
	defer func() { _ = c.Abort() }()
	bound(c.raw)
	ctl := &control{
		link: l, conn: c, calls: make(chan struct{}, callsAtOnce),
		waiting: map[uint64]chan *message{}, pings: map[uint64]time.Time{},
	}
	l.mu.Lock()
	mine := hello{Site: l.deps.Site, Program: l.deps.Version, Oldest: l.oldest, Newest: l.newest, Config: maps.Clone(l.summary)}
	revision := l.revision
	l.mu.Unlock()
	if err := ctl.write(&message{Kind: kindHello, Hello: &mine}); err != nil {
		return err
	}
	r := bufio.NewReaderSize(c, 4<<10)
	_ = c.SetReadDeadline(time.Now().Add(l.cfg.HandshakeTimeout))
	first, err := readFrame(r, maxHelloBytes)
	if err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	if err := ctl.greeted(first); err != nil {
		l.fault(err)
		return err
	}
	changed := l.addControl(ctl, revision)
	defer l.removeControl(ctl)
	if changed != nil {
		if err := ctl.write(&message{Kind: kindConfig, Config: changed}); err != nil {
			return err
		}
	}
	pctx, stop := context.WithCancel(ctx)
	var own sync.WaitGroup
	defer own.Wait()
	defer stop()
	own.Go(func() { ctl.ping(pctx) })
	for {
		_ = c.SetReadDeadline(time.Now().Add(l.cfg.Silence))
		m, err := readFrame(r, MaxFrameBytes)
		if err != nil {
			return fmt.Errorf("read from the other site: %w", err)
		}
		l.heardFrom(ctl, m)
		ctl.take(pctx, &own, m)
	}
}

// greeted judges the other site's first message.
func (ctl *control) greeted(m *message) error {
	l := ctl.link
	if m.Kind != kindHello || m.Hello == nil {
		return fmt.Errorf("expected a greeting, got %q", m.Kind)
	}
	h := m.Hello
	switch {
	case h.Site == l.deps.Site && h.Site != "":
		return fmt.Errorf("both sites call themselves %s: change site in one configuration", h.Site)
	case l.deps.PeerSite != "" && h.Site != l.deps.PeerSite:
		return fmt.Errorf("the other site calls itself %q, expected %q: compare sites in both configurations", h.Site, l.deps.PeerSite)
	}
	var err error
	if ctl.version, err = agree(l.oldest, l.newest, h); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peer = *h; h.Config == nil {
		l.peer.Config = map[string]string{}
	}
	return nil
}

// addControl makes the connection usable. The oldest of too many is closed. Where
// the configuration has changed since the greeting said what it was (revision), it
// returns what it is now: SetConfig could not know of this connection.
func (l *Link) addControl(ctl *control, revision uint64) (changed map[string]string) {
	l.mu.Lock()
	l.controls = append(l.controls, ctl)
	if l.revision != revision {
		changed = maps.Clone(l.summary)
	}
	var surplus *control
	if len(l.controls) > controlsKept {
		surplus = l.controls[0]
	}
	l.lastFault = ""
	l.mu.Unlock()
	if surplus != nil {
		_ = surplus.conn.Abort()
	}
	l.log.Info("rpc connection with the other site", "inbound", ctl.conn.inbound, "remote", ctl.conn.RemoteAddr().String(), "protocol", ctl.version)
	return changed
}

// removeControl ends the calls that wait on the connection.
func (l *Link) removeControl(ctl *control) {
	l.mu.Lock()
	l.controls = slices.DeleteFunc(l.controls, func(c *control) bool { return c == ctl })
	l.mu.Unlock()
	_ = ctl.conn.Abort()
	ctl.mu.Lock()
	defer ctl.mu.Unlock()
	ctl.ended = true
	for id, ch := range ctl.waiting {
		close(ch)
		delete(ctl.waiting, id)
	}
}

// write sends a frame. A peer that does not read ends the connection.
func (ctl *control) write(m *message) error {
	frame, err := encode(m)
	if err != nil {
		return err
	}
	ctl.wmu.Lock()
	defer ctl.wmu.Unlock()
	_ = ctl.conn.SetWriteDeadline(time.Now().Add(ctl.link.cfg.Silence))
	if _, err := ctl.conn.Write(frame); err != nil {
		_ = ctl.conn.Abort()
		return fmt.Errorf("write to the other site: %w", err)
	}
	return nil
}

// ping measures until ctx ends.
func (ctl *control) ping(ctx context.Context) {
	t := time.NewTicker(ctl.link.cfg.Ping)
	defer t.Stop()
	for {
		ctl.mu.Lock()
		ctl.next++
		id := ctl.next
		if len(ctl.pings) > 64 {
			clear(ctl.pings)
		}
		ctl.pings[id] = time.Now()
		ctl.mu.Unlock()
		if err := ctl.write(&message{Kind: kindPing, ID: id}); err != nil {
			return // the reader sees it too
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// take acts on one message.
func (ctl *control) take(ctx context.Context, own *sync.WaitGroup, m *message) {
	switch m.Kind {
	case kindPing:
		now := time.Now().UnixNano()
		_ = ctl.write(&message{Kind: kindPong, ID: m.ID, Received: now, Sent: time.Now().UnixNano()})
	case kindPong:
		ctl.mu.Lock()
		sent, ok := ctl.pings[m.ID]
		delete(ctl.pings, m.ID)
		ctl.mu.Unlock()
		if ok {
			ctl.link.measured(sent, time.Now(), m.Received, m.Sent)
		}
	case kindReply:
		ctl.mu.Lock()
		ch := ctl.waiting[m.ID]
		delete(ctl.waiting, m.ID)
		ctl.mu.Unlock()
		if ch != nil {
			ch <- m // has room for one
		}
	case kindCall:
		select {
		case ctl.calls <- struct{}{}:
			own.Go(func() {
				defer func() { <-ctl.calls }()
				ctl.answer(ctx, m)
			})
		default:
			_ = ctl.write(&message{Kind: kindReply, ID: m.ID, Code: codeBusy})
		}
	case kindHello, kindConfig: // heardFrom took what they say
	}
}

// backoff is the pause between attempts: doubling, with jitter, bounded.
type backoff struct{ next time.Duration }

const (
	firstPause = 200 * time.Millisecond
	longPause  = 3 * time.Second
)

func newBackoff() *backoff { return &backoff{next: firstPause} }

func (b *backoff) reset() { b.next = firstPause }

// wait returns false when ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	// Between half and whole, so that both sites do not knock in step.
	pause := b.next/2 + rand.N(b.next/2) //nolint:gosec // jitter needs no secrecy
	b.next = min(2*b.next, longPause)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
