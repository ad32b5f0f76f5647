package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
)

// Buffers: the small one is a connection's own while it is idle, the large one is
// borrowed while bytes flow.
const (
	smallBytes = 1 << 10
	largeBytes = 32 << 10
	// spliceBytes is what the kernel passes on between two looks.
	spliceBytes = 256 << 10
	// busyFor is how long a large buffer is kept without a byte.
	busyFor = time.Second
)

// session is one client's connection: near is towards the client, far towards the
// server.
type session struct {
	tunnel  *Tunnel
	service *service
	way     Way
	exit    bool // the client entered at the other site
	client  netip.AddrPort
	near    net.Conn
	far     net.Conn
	sniff   bool // a PROXY header from this client is a forgery
	began   time.Time

	active   atomic.Int64    // Unix nanoseconds of the last byte
	stalled  [2]atomic.Int64 // since when a write waits; 0: none does
	isTLS    atomic.Bool     // the client has begun TLS: a farewell would be noise
	midLine  atomic.Bool     // the last byte to the client was not the end of a line
	forged   atomic.Bool
	deadline atomic.Int64 // Unix nanoseconds when it must have ended; 0: none

	left atomic.Int32 // directions that have not ended
	once sync.Once
}

// The directions.
const (
	up   = 0 // from the client
	down = 1 // to the client
)

// serve passes bytes until both directions have ended, and then calls done. It
// does not wait: the two goroutines begin with small stacks, which an idle
// connection keeps.
func (t *Tunnel) serve(s *session, done func()) {
	s.active.Store(time.Now().UnixNano())
	t.mu.Lock()
	t.sessions[s] = struct{}{}
	late := t.impatient
	t.mu.Unlock()
	t.metrics.sessions.WithLabelValues(s.service.name, s.kind()).Inc()
	// The role may have moved between the decision and now.
	s.judge(time.Now())
	if late {
		s.end("stopping", true) // those before it have been told already
	}
	s.left.Store(2)
	finish := func() {
		if s.left.Add(-1) > 0 {
			return
		}
		s.end("done", false)
		t.mu.Lock()
		delete(t.sessions, s)
		t.mu.Unlock()
		done()
	}
	go func() {
		defer finish()
		s.pass(up, s.far, s.near)
	}()
	go func() {
		defer finish()
		s.pass(down, s.near, s.far)
	}()
}

// kind is the session's way in metrics and status.
func (s *session) kind() string {
	if s.exit {
		return "from_other_site"
	}
	return s.way.String()
}

// pass copies one direction. Its end ends the other half, an error both.
func (s *session) pass(dir int, dst, src net.Conn) {
	err := s.copy(dir, dst, src)
	switch {
	case err == nil:
		if err := closeWrite(dst); err != nil {
			s.end("broken", false)
		}
	case errors.Is(err, syscall.ECONNRESET):
		s.reset()
	default:
		s.end("broken", false)
	}
}

// copy passes bytes until src ends; nil is its orderly end.
func (s *session) copy(dir int, dst, src net.Conn) error {
	small := make([]byte, smallBytes)
	bytes := s.tunnel.metrics.bytes[dir]
	sniff := dir == up && s.sniff
	var head []byte // the first bytes, while they may still become a header
	for {
		n, err := src.Read(small)
		if n > 0 {
			if sniff {
				head = append(head, small[:min(n, len(proxyproto.SIGV2))]...)
				if looksForged(head) {
					s.refuseForged()
					return errHeader
				}
				if sniff = mayBeForged(head); !sniff {
					head = nil
				}
			}
			s.note(dir, small[:n])
			bytes.Add(float64(n))
			if n == smallBytes && err == nil {
				err = s.bulk(dir, dst, src, small, bytes)
			} else if werr := s.write(dir, dst, small[:n]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// refuseForged ends a session whose client sent a PROXY header of its own. The
// bytes that complete its signature are not passed on.
func (s *session) refuseForged() {
	s.forged.Store(true)
	s.tunnel.metrics.refused.WithLabelValues(s.service.name, whyForged).Inc()
	s.tunnel.log.Warn("client refused", "service", s.service.name, "client", s.client.String(), "reason", whyForged)
	s.reset()
}

// note keeps what a farewell needs to know.
func (s *session) note(dir int, b []byte) {
	s.active.Store(time.Now().UnixNano())
	if s.service.protocol == ProtocolRaw {
		return
	}
	if dir == down {
		s.midLine.Store(b[len(b)-1] != '\n')
	} else if b[0] == 0x16 { // a TLS record of type handshake (RFC 8446, section 5.1)
		s.isTLS.Store(true)
	}
}

// write passes bytes on, and marks the time while it waits.
func (s *session) write(dir int, dst net.Conn, b []byte) error {
	s.stalled[dir].Store(time.Now().UnixNano())
	_, err := dst.Write(b)
	s.stalled[dir].Store(0)
	return err
}

// bulk passes bytes with a large buffer, or within the kernel, until the flow
// pauses (nil) or ends. head has been read already.
func (s *session) bulk(dir int, dst, src net.Conn, head []byte, count prometheus.Counter) error {
	large, _ := s.tunnel.buffers().Get().(*[largeBytes]byte)
	defer s.tunnel.buffers().Put(large)
	have := copy(large[:], head)
	defer func() { _ = src.SetReadDeadline(time.Time{}) }()
	var set time.Time
	for {
		// Once in a while is enough: the deadline only gives the buffer back.
		if now := time.Now(); now.Sub(set) > busyFor/4 {
			set = now
			_ = src.SetReadDeadline(now.Add(busyFor))
		}
		n, err := src.Read(large[have:])
		if n > 0 {
			s.note(dir, large[have:have+n])
			count.Add(float64(n))
		}
		if have += n; have > 0 {
			if werr := s.write(dir, dst, large[:have]); werr != nil {
				return werr
			}
			have = 0
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
		if done, err := s.splice(dir, dst, src, count); done || err != nil {
			return err
		}
	}
}

// splice lets the kernel pass bytes between two plain TCP connections, without a
// copy (splice(2), by io.ReaderFrom). done: the flow paused. Protocols whose bytes
// must be seen, and TLS, are not for it.
func (s *session) splice(dir int, dst, src net.Conn, count prometheus.Counter) (done bool, err error) {
	to, ok1 := dst.(*net.TCPConn)
	from, ok2 := src.(*net.TCPConn)
	if !ok1 || !ok2 || s.service.protocol != ProtocolRaw {
		return false, nil
	}
	for {
		_ = from.SetReadDeadline(time.Now().Add(busyFor))
		s.stalled[dir].Store(time.Now().UnixNano())
		n, err := to.ReadFrom(&io.LimitedReader{R: from, N: spliceBytes})
		s.stalled[dir].Store(0)
		if n > 0 {
			s.active.Store(time.Now().UnixNano())
			count.Add(float64(n))
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return true, nil
		case err != nil:
			return true, err
		case n < spliceBytes:
			return true, io.EOF
		}
	}
}

// end closes both connections. With words, a client that can understand them is
// told first.
func (s *session) end(why string, words bool) {
	s.once.Do(func() {
		if text := farewell(s.service.protocol); words && text != "" && !s.isTLS.Load() && !s.midLine.Load() {
			_ = s.near.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(s.near, text)
		}
		if words {
			s.tunnel.metrics.ended.WithLabelValues(s.service.name, why).Inc()
			s.tunnel.log.Info("connection ended", "service", s.service.name, "client", s.client.String(), "way", s.kind(), "reason", why)
		}
		closeNow(s.near)
		closeNow(s.far)
	})
}

// reset ends both connections as a broken one does, so that neither side takes
// half of something for all of it.
func (s *session) reset() {
	s.once.Do(func() {
		for _, c := range []net.Conn{s.near, s.far} {
			if a, ok := c.(interface{ Abort() error }); ok {
				_ = a.Abort()
			} else {
				reset(c)
			}
		}
	})
}

// closeNow closes without waiting for a peer that does not read. TLS would write
// its farewell, which blocks behind a write that is stuck.
func closeNow(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_ = c.Close()
}

// judge gives a session that is in the wrong place a time to end, and ends one
// that may not go on at all.
func (s *session) judge(now time.Time) {
	t := s.tunnel
	// A connection across is not in the wrong place because the link is down:
	// LinkLost decides about it.
	linkUp := s.way == Across || t.deps.Link != nil && t.deps.Link.Up()
	want := Decide(t.deps.View(), now, linkUp, s.service.fenced)
	switch {
	case want == Refuse:
		s.end(whyFenced, true)
	case want == s.way:
		s.deadline.Store(0)
	case s.deadline.Load() == 0:
		s.deadline.Store(now.Add(t.cfg.Drain).UnixNano())
	}
}

// lookEvery is how often sessions are looked at.
const lookEvery = time.Second

// look ends sessions that are idle, stalled, banned, cut off or in the wrong place.
func (t *Tunnel) look(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var lostAt time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.kick:
		case <-tick.C: // a permit lapses without anybody saying so
		}
		now := time.Now()
		switch {
		case t.deps.Link == nil || t.deps.Link.Up():
			lostAt = time.Time{}
		case lostAt.IsZero():
			lostAt = now
		}
		cut := !lostAt.IsZero() && now.Sub(lostAt) >= t.cfg.LinkLost
		for _, s := range t.list() {
			s.judge(now)
			if why := s.overdue(now, cut); why != "" {
				s.end(why, true)
			}
		}
	}
}

// overdue says why a session must end; empty: it need not.
func (s *session) overdue(now time.Time, cut bool) string {
	t := s.tunnel
	since := func(ns int64) time.Duration { return time.Duration(now.UnixNano() - ns) }
	switch {
	case cut && (s.exit || s.way == Across):
		return "link_lost"
	case s.deadline.Load() != 0 && since(s.deadline.Load()) >= 0:
		return whyMoved
	case since(s.active.Load()) > t.cfg.IdleTimeout:
		return "idle"
	case t.deps.Banned(s.client.Addr()):
		return whyBanned
	}
	for i := range s.stalled {
		if at := s.stalled[i].Load(); at != 0 && since(at) > t.cfg.StallTimeout {
			return "stalled"
		}
	}
	return ""
}
