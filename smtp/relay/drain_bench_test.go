package relay

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// delayProxy passes bytes on after half a round trip, in each direction, and
// keeps their order and the pace they came in.
func delayProxy(tb testing.TB, to string, rtt time.Duration) string {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				time.Sleep(rtt)               //nolint:forbidigo // the handshake's round trip
				s, err := net.Dial("tcp", to) //nolint:noctx // a benchmark
				if err != nil {
					_ = c.Close()
					return
				}
				go delayed(s, c, rtt/2)
				delayed(c, s, rtt/2)
			}()
		}
	}()
	return l.Addr().String()
}

type piece struct {
	at time.Time
	b  []byte
}

func delayed(dst, src net.Conn, d time.Duration) {
	pieces := make(chan piece, 4096)
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := range pieces {
			<-time.After(time.Until(p.at))
			if _, err := dst.Write(p.b); err != nil {
				break
			}
		}
		_ = dst.Close()
		for range pieces { // let the reader go on
		}
	})
	for {
		b := make([]byte, 64<<10)
		n, err := src.Read(b)
		if n > 0 {
			pieces <- piece{time.Now().Add(d), b[:n]}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	wg.Wait()
	_ = src.Close()
}

// BenchmarkDrain empties a queue of 4 KiB messages into a sink with CHUNKING,
// from a cold start, over 20 connections at most.
func BenchmarkDrain(b *testing.B) {
	body := "Subject: drain\r\n\r\n" + strings.Repeat(strings.Repeat("x", 78)+"\r\n", 51)
	for _, rtt := range []time.Duration{0, 20 * time.Millisecond} {
		for _, ext := range []string{"CHUNKING", "DATA"} {
			b.Run(fmt.Sprintf("rtt=%v/%s", rtt, ext), func(b *testing.B) {
				hop := newFakeHop("PIPELINING", "8BITMIME", "SIZE", ext)
				hop.keep = false
				addr := hop.listen(b, "tcp", "127.0.0.1:0").Addr().String()
				if rtt > 0 {
					addr = delayProxy(b, addr, rtt)
				}
				const messages = 5000
				for b.Loop() {
					b.StopTimer()
					before := hop.received()
					g := newRig(b, nil, nil, "smtp://"+addr)
					for i := range messages {
						g.q.addFor("", fmt.Sprint(i), int64(len(body)), func() io.Reader { return strings.NewReader(body) }, "u@x.test")
					}
					b.StartTimer()
					g.start()
					until(b, "drained", func() bool { return g.q.left() == 0 })
					b.StopTimer()
					g.stop()
					if n := hop.received() - before; n != messages {
						b.Fatalf("%d arrived", n)
					}
					b.StartTimer()
				}
				b.ReportMetric(float64(messages)*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
