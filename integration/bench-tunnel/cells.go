package main

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"understudy/integration/lab"
)

// cell is one row of the table.
type cell struct {
	name string
	rtt  time.Duration
	// measure returns the figure and what else belongs to it.
	measure func(h *lab.Program, s *system, scale float64) (figure, error)
}

// figure is one measurement. Values are in the unit of the cell.
type figure struct {
	values []float64
}

func cells() []cell {
	const far = 20 * time.Millisecond
	return []cell{
		{"set-up, loopback: p50, p99 ms", 0, setup(400)},
		{"set-up, 20 ms: p50, p99 ms", far, setup(100)},
		{"200 at once, loopback, second burst: p50, p99 ms", 0, burst},
		{"200 at once, 20 ms, second burst: p50, p99 ms", far, burst},
		{"1 stream, loopback: MB/s, CPU s/GB", 0, streams(1, 512)},
		{"16 streams, loopback: MB/s, CPU s/GB", 0, streams(16, 512)},
		{"1,000 idle clients: MiB", 0, idle},
		{"echo beside 4 downloads, 20 ms: p50, p99 ms", far, echo},
	}
}

// quantiles of durations, in milliseconds.
func quantiles(d []time.Duration) figure {
	slices.Sort(d)
	at := func(q float64) float64 {
		return float64(d[min(int(q*float64(len(d))), len(d)-1)]) / float64(time.Millisecond)
	}
	return figure{[]float64{at(0.5), at(0.99)}}
}

func setup(n int) func(*lab.Program, *system, float64) (figure, error) {
	return func(_ *lab.Program, s *system, scale float64) (figure, error) {
		var took []time.Duration
		for range max(int(float64(n)*scale), 10) {
			began := time.Now()
			c, _, err := connect(s.addr)
			if err != nil {
				return figure{}, err
			}
			took = append(took, time.Since(began))
			_ = c.Close()
		}
		return quantiles(took), nil
	}
}

// burst is 200 clients at the same time, for the second time: a pool has seen one.
func burst(_ *lab.Program, s *system, _ float64) (figure, error) {
	var f figure
	for range 2 {
		var mu sync.Mutex
		var took []time.Duration
		var conns []net.Conn
		var failed error
		var wg sync.WaitGroup
		release := make(chan struct{})
		for range 200 {
			wg.Go(func() {
				<-release
				began := time.Now()
				c, _, err := connect(s.addr)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = err
					return
				}
				took, conns = append(took, time.Since(began)), append(conns, c)
			})
		}
		close(release)
		wg.Wait()
		for _, c := range conns {
			_ = c.Close()
		}
		if failed != nil {
			return figure{}, failed
		}
		f = quantiles(took)
		pause(8 * time.Second) // whoever keeps connections warm fills up
	}
	return f, nil
}

// pause lets the systems settle.
func pause(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

// streams downloads so many MB in all.
func streams(n, megabytes int) func(*lab.Program, *system, float64) (figure, error) {
	return func(_ *lab.Program, s *system, scale float64) (figure, error) {
		each := int64(float64(megabytes)*scale*1e6) / int64(n)
		before, err := s.cpu()
		if err != nil {
			return figure{}, err
		}
		began := time.Now()
		var wg sync.WaitGroup
		errs := make(chan error, n)
		for range n {
			wg.Go(func() { errs <- download(s.addr, each) })
		}
		wg.Wait()
		took := time.Since(began)
		for range n {
			if err := <-errs; err != nil {
				return figure{}, err
			}
		}
		after, err := s.cpu()
		if err != nil {
			return figure{}, err
		}
		total := float64(each * int64(n))
		return figure{[]float64{total / 1e6 / took.Seconds(), (after - before).Seconds() / (total / 1e9)}}, nil
	}
}

func download(addr string, n int64) error {
	c, r, err := connect(addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "D %d\n", n); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for n > 0 {
		k, err := r.Read(buf[:min(n, int64(len(buf)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// idle is the growth of both ends' memory by 1,000 clients that have said a line.
func idle(_ *lab.Program, s *system, _ float64) (figure, error) {
	if len(s.pids) == 0 {
		return figure{[]float64{0}}, nil
	}
	before, err := s.rss()
	if err != nil {
		return figure{}, err
	}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range 1000 {
		c, r, err := connect(s.addr)
		if err != nil {
			return figure{}, err
		}
		open = append(open, c)
		if _, err := io.WriteString(c, "E\n"); err != nil {
			return figure{}, err
		}
		if _, err := r.ReadString('\n'); err != nil {
			return figure{}, err
		}
	}
	pause(5 * time.Second)
	after, err := s.rss()
	return figure{[]float64{float64(after-before) / (1 << 20)}}, err
}

// echo is a line every 10 ms on its own connection while 4 downloads run.
func echo(_ *lab.Program, s *system, scale float64) (figure, error) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if download(s.addr, 4<<20) != nil {
					return
				}
			}
		})
	}
	c, r, err := connect(s.addr)
	if err != nil {
		return figure{}, err
	}
	defer func() { _ = c.Close() }()
	var took []time.Duration
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range max(int(400*scale), 20) {
		<-tick.C
		began := time.Now()
		if _, err := io.WriteString(c, "E\n"); err != nil {
			return figure{}, err
		}
		if _, err := r.ReadString('\n'); err != nil {
			return figure{}, err
		}
		took = append(took, time.Since(began))
	}
	return quantiles(took), nil
}
