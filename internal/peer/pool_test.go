package peer

import (
	"testing"
	"time"
)

func TestPoolFollowsDemand(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := &Pool{decayed: now}
	if got := p.target(now); got != poolFloor {
		t.Errorf("target without demand: %d", got)
	}
	for range 100 { // 100 arrivals in one round trip
		p.arrived(now, 20*time.Millisecond)
	}
	if got := p.target(now); got != 200 {
		t.Errorf("target after 100 in one round trip: %d", got)
	}
	for i := range 1000 { // one in each round trip changes nothing
		p.arrived(now.Add(time.Duration(i+1)*30*time.Millisecond), 20*time.Millisecond)
	}
	if got := p.target(now.Add(30 * time.Second)); got != 200 {
		t.Errorf("target half a minute later: %d", got)
	}
	if got := p.target(now.Add(2 * time.Minute)); got < 50 || got > 120 {
		t.Errorf("target two minutes later: %d", got)
	}
	if got := p.target(now.Add(time.Hour)); got != poolFloor {
		t.Errorf("target an hour later: %d", got)
	}
	for range 5000 {
		p.arrived(now.Add(time.Hour), 20*time.Millisecond)
	}
	if got := p.target(now.Add(time.Hour)); got != poolCap {
		t.Errorf("target after 5,000 in one round trip: %d", got)
	}
}

func TestPoolIsWarm(t *testing.T) {
	t.Parallel()
	me := newTestKey(t)
	server := site(t, me, nil)
	l, err := New(Config{Address: server.Addrs()[0].String(), Pins: []string{server.Pin().String()}, Ping: 50 * time.Millisecond, Silence: 2 * time.Second}, Deps{Site: "b", Key: me})
	if err != nil {
		t.Fatal(err)
	}
	p := l.Warm(Redis)
	runLink(t, l)
	wait(t, "a full pool", func() bool { return p.status().Idle == poolFloor })
	for range poolFloor {
		c, err := l.Dial(t.Context(), Redis)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	if s := p.status(); s.Hits < 1 {
		t.Errorf("nothing was served warm: %+v", s)
	}
	wait(t, "the pool to fill again", func() bool { s := p.status(); return s.Idle >= poolFloor })
	// Connections that die in the pool are not handed out.
	server.mu.Lock()
	var conns []*Conn
	for c := range server.conns {
		if c.service == Redis {
			conns = append(conns, c)
		}
	}
	server.mu.Unlock()
	abortAll(conns)
	wait(t, "a living connection", func() bool {
		c, err := l.Dial(t.Context(), Redis)
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error("a dead connection was handed out")
		}
		_, err = c.Read(make([]byte, 1))
		return err == nil
	})
}
