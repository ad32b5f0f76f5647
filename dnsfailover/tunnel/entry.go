package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"

	"understudy/internal/peer"
)

// Why a client was not served; the words of metrics and logs.
const (
	whyBanned  = "banned"
	whyLimit   = "limit"
	whyForged  = "forged_proxy_header"
	whyProxy   = "bad_proxy_header"
	whyFenced  = "fenced"
	whyTarget  = "target"
	whyAcross  = "other_site"
	whyMoved   = "moved"
	whyUnknown = "unknown_service"
	whyLoop    = "loop"
)

// headerLimit is how long a load balancer may take for its PROXY header.
const headerLimit = 5 * time.Second

// movingLimit is how long a client waits while the role moves, and movingPause
// how often it is looked.
const (
	movingLimit = 8 * time.Second
	movingPause = 150 * time.Millisecond
)

// errMoved: the other site is not active either.
var errMoved = errors.New("tunnel: the other site is not active")

// entry finds the way of one client that connected here, and leaves it to a
// session. It owes one Done of t.running.
func (t *Tunnel) entry(ctx context.Context, svc *service, nc net.Conn) {
	served := false
	defer func() {
		if !served {
			t.running.Done()
		}
	}()
	began := time.Now()
	client, server := addrPort(nc.RemoteAddr()), addrPort(nc.LocalAddr())
	trusted := within(client.Addr(), svc.trusted)
	if trusted {
		b := &buffered{Conn: nc, r: bufio.NewReaderSize(nc, 1<<10)}
		_ = nc.SetReadDeadline(time.Now().Add(headerLimit))
		h, err := proxyproto.Read(b.r)
		_ = nc.SetReadDeadline(time.Time{})
		if err != nil {
			t.refuse(nc, svc, client, whyProxy, err)
			return
		}
		if src, dst, ok := h.TCPAddrs(); ok && h.Command == proxyproto.PROXY {
			client, server = unmapped(src.AddrPort()), unmapped(dst.AddrPort())
		}
		nc = b
	}
	if t.deps.Banned(client.Addr()) {
		t.refuse(nc, svc, client, whyBanned, nil)
		return
	}
	if !t.take(svc, client.Addr()) {
		t.refuse(nc, svc, client, whyLimit, nil)
		return
	}
	defer func() {
		if !served {
			t.give(svc, client.Addr())
		}
	}()
	p := &passage{service: svc.name, origin: t.deps.Site, client: client, server: server}
	out, way, why, err := t.connect(ctx, svc, p)
	if err != nil {
		t.refuse(nc, svc, client, why, err)
		return
	}
	t.metrics.setup.WithLabelValues(way.String()).Observe(time.Since(began).Seconds())
	s := &session{tunnel: t, service: svc, way: way, client: client, near: nc, far: out, sniff: !trusted, began: began}
	served = true
	t.serve(s, func() {
		t.give(svc, client.Addr())
		t.running.Done()
	})
}

// connect finds the client's way, as long as the role is on the move.
func (t *Tunnel) connect(ctx context.Context, svc *service, p *passage) (net.Conn, Way, string, error) {
	limit := time.Now().Add(movingLimit)
	for {
		linkUp := t.deps.Link != nil && t.deps.Link.Up()
		way := Decide(t.deps.View(), time.Now(), linkUp, svc.fenced)
		var out net.Conn
		var err error
		switch way {
		case Refuse:
			return nil, way, whyFenced, errors.New("this site is not active and cannot reach the one that is")
		case Local:
			if out, err = t.dialTarget(ctx, svc, p); err != nil {
				return nil, way, whyTarget, err
			}
			return out, way, "", nil
		case Across:
			out, err = t.dialAcross(ctx, p)
		}
		switch {
		case err == nil:
			return out, way, "", nil
		case errors.Is(err, peer.ErrDown) && svc.fenced == FencedLocal:
			if out, err = t.dialTarget(ctx, svc, p); err != nil {
				return nil, way, whyTarget, err
			}
			return out, Local, "", nil
		case !errors.Is(err, errMoved):
			return nil, way, whyAcross, err
		case time.Now().After(limit):
			return nil, way, whyMoved, err
		}
		pause := time.NewTimer(movingPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil, way, whyMoved, context.Cause(ctx)
		case <-pause.C:
		}
	}
}

// dialTarget connects to this site's server and tells it who the client is.
func (t *Tunnel) dialTarget(ctx context.Context, svc *service, p *passage) (net.Conn, error) {
	d := net.Dialer{Timeout: t.cfg.ConnectTimeout}
	out, err := d.DialContext(ctx, "tcp", svc.Local)
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", svc.Local, err)
	}
	header, err := svc.targetHeader(p)
	if err == nil && len(header) > 0 {
		_ = out.SetWriteDeadline(time.Now().Add(t.cfg.ConnectTimeout))
		_, err = out.Write(header)
		_ = out.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		_ = out.Close()
		return nil, fmt.Errorf("tell %s who the client is: %w", svc.Local, err)
	}
	return out, nil
}

// dialAcross has the other site connect to its server.
func (t *Tunnel) dialAcross(ctx context.Context, p *passage) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*t.cfg.ConnectTimeout)
	defer cancel()
	onward := *p
	onward.hops++
	header, err := onward.format()
	if err != nil {
		return nil, err
	}
	c, err := t.deps.Link.Dial(ctx, peer.Tunnel)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(t.cfg.ConnectTimeout))
	var answer [1]byte
	if _, err = c.Write(header); err == nil {
		_, err = c.Read(answer[:])
	}
	_ = c.SetDeadline(time.Time{})
	if err != nil {
		_ = c.Abort()
		return nil, fmt.Errorf("hand the client to the other site: %w", err)
	}
	switch answer[0] {
	case answerOK:
		return c, nil
	case answerMoved:
		err = errMoved
	case answerTarget:
		err = errors.New("the other site's server does not answer")
	case answerUnknown:
		err = fmt.Errorf("the other site has no service %q", p.service)
	default:
		err = errors.New("the other site refused the client")
	}
	_ = c.Abort()
	return nil, err
}

// refuse resets a client, and says why to operators.
func (t *Tunnel) refuse(nc net.Conn, svc *service, client netip.AddrPort, why string, err error) {
	reset(nc)
	t.metrics.refused.WithLabelValues(svc.name, why).Inc()
	level := t.log.Info
	if why == whyBanned {
		level = t.log.Debug
	}
	level("client refused", "service", svc.name, "client", client.String(), "reason", why, "err", err)
}

// take counts a client in; false where it is one too many.
func (t *Tunnel) take(svc *service, a netip.Addr) bool {
	k := clientKey{svc.name, networkOf(a)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[svc.name] >= svc.MaxConnections || t.perNet[k] >= svc.MaxPerClient {
		return false
	}
	t.open[svc.name]++
	t.perNet[k]++
	return true
}

// give counts it out.
func (t *Tunnel) give(svc *service, a netip.Addr) {
	k := clientKey{svc.name, networkOf(a)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[svc.name]--
	if t.perNet[k]--; t.perNet[k] <= 0 {
		delete(t.perNet, k)
	}
}

func within(a netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
