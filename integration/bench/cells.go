package main

import (
	"fmt"
	"time"

	"understudy/integration/lab"
)

// unit is what a sample's value means.
type unit string

const (
	perSecond unit = "msg/s"
	seconds   unit = "s"
	mebibytes unit = "MiB"
)

// sample is one measurement.
type sample struct {
	value float64
	unit  unit
	// beyond says that the value is only a lower bound.
	beyond bool
	// memory is the peak PSS in MiB; 0 where it was not watched.
	memory float64
}

func (s sample) String() string {
	more := ""
	if s.beyond {
		more = "> "
	}
	if s.memory > 0 {
		return fmt.Sprintf("%s%.0f %s, %.0f MiB", more, s.value, s.unit, s.memory)
	}
	return fmt.Sprintf("%s%.4g %s", more, s.value, s.unit)
}

// cell is one row of the table.
type cell struct {
	name   string
	target string
	unit   unit
	// once is measured in one round only, because it takes long and varies little.
	once    bool
	measure func(h *lab.Program, s system, scale float64) sample
}

// load is the size of an accept cell.
type load struct {
	bytes, connections, messages int
	reconnect                    bool
}

func cells() []cell {
	var all []cell
	for _, l := range []struct {
		load
		target string
	}{
		{load{4 << 10, 1, 600, false}, "at least 3x"},
		{load{4 << 10, 10, 2500, false}, ""},
		{load{4 << 10, 50, 4000, false}, "at least 8x"},
		{load{4 << 10, 200, 5000, false}, "at least 8x; memory at most a third"},
		{load{4 << 10, 1, 600, true}, "at least 3x"},
		{load{4 << 10, 10, 2500, true}, "at least 3x"},
		{load{4 << 10, 50, 4000, true}, "at least 3x"},
		{load{64 << 10, 10, 800, false}, "at least 4x"},
		{load{64 << 10, 50, 1300, false}, "at least 4x"},
	} {
		how := "reused"
		if l.reconnect {
			how = "one per message"
		}
		plural := "s"
		if l.connections == 1 {
			plural = ""
		}
		all = append(all, cell{
			name:   fmt.Sprintf("durable accept, %d KiB, %d connection%s %s", l.bytes>>10, l.connections, plural, how),
			target: l.target, unit: perSecond, measure: l.accept,
		})
	}
	return append(
		all,
		cell{name: "drain of 5,000, no delay, 50 connections", target: "at least 1.5x", unit: perSecond, measure: drain(0, 50)},
		cell{name: "drain of 5,000, 20 ms round trip, 20 connections", target: "at least 5x", unit: perSecond, measure: drain(20*time.Millisecond, 20)},
		cell{name: "first delivery after the primary returns", target: "under 2 s", unit: seconds, once: true, measure: firstDelivery},
	)
}

// accept measures how fast messages are accepted durably.
func (l load) accept(h *lab.Program, s system, scale float64) sample {
	s.start(lab.FreeAddr(h), 20) // nobody listens there
	n := int(float64(l.messages) * scale)
	// A fast server gets more, so that every cell runs for seconds.
	if _, fast := s.(*understudy); fast {
		if l.connections == 1 {
			n *= 2
		} else {
			n *= 5
		}
	}
	n = max(n, l.connections)
	warm := max(l.connections*2, 20)
	send(h, s, warm, l)
	stop := peakPSS(s)
	start := time.Now()
	send(h, s, n, l)
	took := time.Since(start)
	memory := stop()
	if got := s.queued(); got != n+warm {
		h.Fatalf("%d of %d accepted messages are in the queue", got, n+warm)
	}
	return sample{value: float64(n) / took.Seconds(), unit: perSecond, memory: memory}
}

func send(h *lab.Program, s system, n int, l load) {
	err := lab.Load{
		Addr: s.addr(), Messages: n, Connections: l.connections, Bytes: l.bytes, Reconnect: l.reconnect,
		From: "sender@ext.test", To: "user@" + domain,
	}.Run(h.Context())
	if err != nil {
		h.Fatalf("send load: %v", err)
	}
}

// drain measures how fast a queue empties into a next hop with CHUNKING.
func drain(rtt time.Duration, connections int) func(*lab.Program, system, float64) sample {
	return func(h *lab.Program, s system, scale float64) sample {
		hop := lab.FreeAddr(h)
		s.start(hop, connections)
		n := max(int(5000*scale), connections)
		send(h, s, n, load{bytes: 4 << 10, connections: 20})
		if got := s.queued(); got != n {
			h.Fatalf("%d of %d accepted messages are in the queue", got, n)
		}
		var sink *lab.Sink
		if rtt > 0 {
			sink = lab.StartSink(h, lab.SinkConfig{Chunking: true})
			lab.StartDelay(h, hop, sink.Addr, rtt)
		} else {
			sink = lab.StartSink(h, lab.SinkConfig{Addr: hop, Chunking: true})
		}
		start := time.Now()
		s.flush()
		sink.WaitCount(h, n, 10*time.Minute)
		took := time.Since(start)
		if peak := sink.Peak(); peak > connections+1 {
			h.Fatalf("%d connections to the next hop, want %d at most", peak, connections)
		}
		lab.Wait(h, time.Minute, "the queue is empty", func() error {
			if left := s.queued(); left > 0 {
				return fmt.Errorf("%d messages are left", left)
			}
			return nil
		})
		if got := sink.Count(); got != n {
			h.Fatalf("the next hop took %d messages of %d", got, n)
		}
		return sample{value: float64(n) / took.Seconds(), unit: perSecond}
	}
}

// Lengths of firstDelivery: how long the primary is dead, and how long anybody
// waits for the first message after its return. Postfix tries a deferred message
// again after 300 to 4,000 s.
const (
	outage    = 30 * time.Second
	firstWait = 60 * time.Second
)

// firstDelivery measures the time from the primary's return to the first message.
func firstDelivery(h *lab.Program, s system, scale float64) sample {
	hop := lab.FreeAddr(h)
	s.start(hop, 20)
	send(h, s, 20, load{bytes: 4 << 10, connections: 4})
	if p, ok := s.(*postfix); ok {
		// Off hold, tried once, and deferred: as mail is when the primary is dead.
		p.flush()
	}
	limit := firstWait
	if scale < 1 {
		limit /= 10
	}
	pause(h, time.Duration(float64(outage)*min(scale, 1)))
	sink := lab.StartSink(h, lab.SinkConfig{Addr: hop, Chunking: true})
	start := time.Now()
	for deadline := start.Add(limit); sink.Count() == 0; pause(h, 5*time.Millisecond) {
		if time.Now().After(deadline) {
			return sample{value: limit.Seconds(), unit: seconds, beyond: true}
		}
	}
	return sample{value: sink.First().Sub(start).Seconds(), unit: seconds}
}

func pause(h *lab.Program, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-h.Context().Done():
		h.Fatalf("interrupted")
	}
}
