package relay

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"understudy/smtp"
)

// A primary that was there all the time comes to know nobody any more: its list is
// empty. The connection does not tell, so it stays proven; still, it must not get
// through the queue.
func TestProvenHopThatKnowsNobodyIsDoubted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		g.start()
		g.q.add("proves", "x\r\n", "u@x")
		synctest.Wait()
		hop.set(func() { hop.rcpt = func(string) string { return "550 5.1.1 no such user" } })
		g.q.fill(200)
		<-time.After(time.Hour)
		if n := g.q.answered() - 1; n != 20 {
			t.Errorf("%d of 200 were given up, want 20", n)
		}
		if s := g.status(); s.State != "paused" || !strings.Contains(g.alarms.String(), "paused") {
			t.Errorf("%+v, alarms %s", s, g.alarms)
		}
		hop.set(func() { hop.rcpt = nil })
		if err := g.Resume(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if g.q.left() != 0 || hop.received() != 181 {
			t.Errorf("%d left, %d received", g.q.left(), hop.received())
		}
		g.stop()
	})
}

// A few who are gone, among others who are not, are no reason to doubt.
func TestProvenHopIsBelievedWhoIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		hop.rcpt = func(addr string) string {
			if strings.HasSuffix(addr, "0@x.test") {
				return ""
			}
			return "550 5.1.1 no such user"
		}
		// One connection: with several, the answers come in any order.
		g := newRig(t, func(c *Config) { c.Connections = 1 }, hop.dial, "smtp://mx1.test")
		g.q.fill(300)
		g.start()
		<-time.After(time.Hour)
		if g.q.left() != 0 || g.alarms.String() != "map[]" {
			t.Errorf("%d left, alarms %s", g.q.left(), g.alarms)
		}
		g.stop()
	})
}

// What does not leave the machine needs no protection on the way.
func TestRequireTLSToUnixSocket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop("PIPELINING")
		hop.lmtp = true
		g := newRig(t, nil, hop.dial, "lmtp:///run/lmtp.sock")
		g.q.edit = func(env *smtp.Envelope) { env.RequireTLS = true }
		g.q.add("m", "x\r\n", "u@x")
		g.start()
		<-time.After(time.Second)
		if hop.received() != 1 || g.q.left() != 0 {
			t.Errorf("received %d: %s", hop.received(), g.status().LastError)
		}
		g.stop()
	})
}

// A hop that goes dark takes as long as one attempt to connect, not one for each
// message that had been given to it.
func TestMessagesLeaveAHopThatGoesDark(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeHop(modern...), newFakeHop(modern...)
		var dark atomic.Bool
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			switch {
			case address != "mx1.test:25":
				return second.dial(ctx, network, address)
			case dark.Load():
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return first.dial(ctx, network, address)
		}
		g := newRig(t, nil, dial, "smtp://mx1.test", "smtp://mx3.test")
		g.start()
		g.q.fill(200)
		<-time.After(5 * time.Minute) // idle connections have ended
		dark.Store(true)
		g.q.fill(200)
		<-time.After(40 * time.Second)
		if first.received() != 200 || second.received() != 200 {
			t.Errorf("%d and %d received, %d left", first.received(), second.received(), g.q.left())
		}
		g.stop()
	})
}

// A handshake that fails may work in a minute: what needs TLS waits, it is not
// refused for good.
func TestRequireTLSWaitsWhereTheHandshakeFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(append([]string{"REQUIRETLS"}, modern...)...)
		hop.tls = &tls.Config{} // no certificate: every handshake fails
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		g.q.add("proves", "x\r\n", "u@x")
		g.start()
		<-time.After(5 * time.Second)
		g.q.edit = func(env *smtp.Envelope) { env.RequireTLS = true }
		g.q.add("m", "x\r\n", "u@x")
		<-time.After(5 * time.Second)
		if hop.received() != 1 || g.q.outcomes("m") != "" || g.q.left() != 1 {
			t.Errorf("%d received, the message: %q; %+v", hop.received(), g.q.outcomes("m"), g.status())
		}
		g.stop()
	})
}
