package tunnel

import (
	"context"
	"errors"
	"time"

	"understudy/dnsfailover"
	"understudy/internal/peer"
)

// warmLimit is how long the other site may keep a connection ready here without
// using it; longer than its pool does.
const warmLimit = 5 * time.Minute

// serveExit serves one client that entered at the other site. It is the link's
// handler of the service Tunnel.
func (t *Tunnel) serveExit(ctx context.Context, c *peer.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(warmLimit))
	p, err := readPassage(c)
	_ = c.SetReadDeadline(time.Time{})
	if err != nil {
		if errors.Is(err, errHeader) {
			t.log.Warn("the other site sent no valid header", "err", err)
		}
		_ = c.Abort()
		return
	}
	t.mu.Lock()
	stopping := t.stopping
	if !stopping {
		t.running.Add(1)
	}
	t.mu.Unlock()
	if stopping {
		t.answer(c, answerMoved)
		_ = c.Close()
		return
	}
	if !t.exit(ctx, c, p) {
		t.running.Done()
	}
}

// exit judges a passage and connects it to the target. True: a session has it, and
// does t.running.Done.
func (t *Tunnel) exit(ctx context.Context, c *peer.Conn, p *passage) bool {
	svc := t.services[p.service]
	refuse := func(answer byte, name, why string) {
		t.answer(c, answer)
		_ = c.Close()
		t.metrics.refused.WithLabelValues(name, why).Inc()
		t.log.Info("client of the other site refused", "service", name, "client", p.client.String(), "origin", p.origin, "reason", why)
	}
	v := t.deps.View()
	switch {
	case svc == nil:
		refuse(answerUnknown, "unknown", whyUnknown)
	case p.hops > maxHops:
		refuse(answerRefused, svc.name, whyLoop)
	case t.deps.Banned(p.client.Addr()):
		refuse(answerRefused, svc.name, whyBanned)
	case !t.mayExit(v, svc):
		refuse(answerMoved, svc.name, whyMoved)
	default:
		began := time.Now()
		out, err := t.dialTarget(ctx, svc, p)
		if err != nil {
			t.log.Warn("server does not answer", "service", svc.name, "err", err)
			refuse(answerTarget, svc.name, whyTarget)
			return false
		}
		if !t.answer(c, answerOK) {
			_ = out.Close()
			_ = c.Abort()
			return false
		}
		t.serve(&session{tunnel: t, service: svc, way: Local, exit: true, client: p.client, near: c, far: out, began: began}, t.running.Done)
		return true
	}
	return false
}

// mayExit says whether this site serves clients of the other one: only as the
// active site, whatever when_fenced says.
func (t *Tunnel) mayExit(v dnsfailover.View, _ *service) bool { return IsActive(v, time.Now()) }

// answer tells the entry; false where it is gone.
func (t *Tunnel) answer(c *peer.Conn, b byte) bool {
	_ = c.SetWriteDeadline(time.Now().Add(t.cfg.ConnectTimeout))
	_, err := c.Write([]byte{b})
	_ = c.SetWriteDeadline(time.Time{})
	return err == nil
}
