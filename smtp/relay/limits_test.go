package relay

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestConnectionsAreReusedAndReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		g := newRig(t, func(c *Config) { c.Messages = 10 }, hop.dial, "smtp://mx1.test")
		g.start()
		for i := range 30 {
			g.q.add(fmt.Sprint(i), "x\r\n", "u@x")
			synctest.Wait()
		}
		if hop.received() != 30 || hop.connections() < 3 || hop.connections() > 5 {
			t.Errorf("%d messages over %d connections", hop.received(), hop.connections())
		}
		<-time.After(time.Minute)
		if hop.open() != 0 {
			t.Errorf("%d idle connections are kept", hop.open())
		}
		g.stop()
	})
}

// A server that closes after some messages costs nobody a back-off.
func TestServerLimitsMessagesPerConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		n := 0
		hop.mail = func(string) string {
			if n++; n%7 == 0 {
				return "421 4.7.0 too many messages on this connection"
			}
			return ""
		}
		g := newRig(t, func(c *Config) { c.Connections = 1 }, hop.dial, "smtp://mx1.test")
		g.q.fill(100)
		g.start()
		<-time.After(time.Minute)
		if g.q.left() != 0 {
			t.Errorf("%d left, %d wait", g.q.left(), g.q.held())
		}
		g.stop()
	})
}

// A server that closes after some bad recipients, as Postfix and our own do, costs
// the good ones nothing.
func TestServerLimitsBadRecipients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		hop.maxBad = 20
		hop.rcpt = func(a string) string {
			if !strings.HasPrefix(a, "no") {
				return ""
			}
			return "550 5.1.1 no such user"
		}
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		for i := range 300 {
			g.q.add(fmt.Sprint(i), "x\r\n", "a@x", "no@x", "b@x")
		}
		g.start()
		<-time.After(time.Minute)
		if g.q.left() != 0 || g.q.held() != 0 {
			t.Errorf("%d left, %d wait", g.q.left(), g.q.held())
		}
		g.stop()
	})
}

// A server that allows fewer connections than we would like is not down.
func TestServerLimitsConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		hop.final = func(string) string { <-time.After(10 * time.Millisecond); return "" }
		dial := func(ctx context.Context, n, a string) (net.Conn, error) {
			full := false
			full = hop.open() >= 3
			if full {
				return nil, errRefused
			}
			return hop.dial(ctx, n, a)
		}
		g := newRig(t, nil, dial, "smtp://mx1.test")
		g.q.fill(500)
		g.start()
		<-time.After(10 * time.Second)
		if s := g.status(); s.State != "up" || g.q.left() != 0 || g.q.expeditions() != 0 {
			t.Errorf("%d left, expedited %v, %+v", g.q.left(), g.q.expedited, s)
		}
		g.stop()
	})
}

// A server without the TLS that is asked for is not greeted every second for
// ever.
func TestProbesOfAnUnusableServerSlowDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		g := newRig(t, nil, hop.dial, "smtp://mx1.test?tls=required")
		g.q.fill(3)
		g.start()
		<-time.After(time.Hour)
		if n := hop.connections(); n < 100 || n > 300 {
			t.Errorf("%d connections in an hour", n)
		}
		if g.q.tried() != 0 || hop.received() != 0 {
			t.Errorf("%d tried, %d sent in plain text", g.q.tried(), hop.received())
		}
		g.stop()
	})
}
