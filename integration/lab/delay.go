package lab

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// Delay is a line with a round trip time: a TCP proxy that hands every byte on
// half a round trip after it came, in order, with no limit on bandwidth. A
// connection costs what a handshake over that line would.
type Delay struct {
	Addr string

	upstream string
	rtt      time.Duration
	listener net.Listener
	conns    connSet
	done     sync.WaitGroup
	ctx      context.Context //nolint:containedctx // the line's own lifetime, ended by Close
	cancel   context.CancelFunc
}

// flightBytes bounds what is under way in one direction of one connection.
const flightBytes = 16 << 20

// StartDelay puts a line of the given round trip time in front of upstream. It
// listens on addr; empty picks a free port.
func StartDelay(h Host, addr, upstream string, rtt time.Duration) *Delay {
	h.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	d := &Delay{upstream: upstream, rtt: rtt, listener: Listen(h, addr)}
	d.Addr = d.listener.Addr().String()
	d.conns.open = map[net.Conn]struct{}{}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.done.Go(d.accept)
	h.Cleanup(d.Close)
	return d
}

// Close cuts the line.
func (d *Delay) Close() {
	d.cancel()
	_ = d.listener.Close()
	d.conns.closeAll()
	d.done.Wait()
}

func (d *Delay) accept() {
	for {
		near, err := d.listener.Accept()
		if err != nil {
			return
		}
		if !d.conns.add(near) {
			_ = near.Close()
			return
		}
		d.done.Go(func() {
			defer d.conns.remove(near)
			d.carry(near)
		})
	}
}

// carry connects to the far end and moves bytes until both directions ended.
func (d *Delay) carry(near net.Conn) {
	// The far end accepts when the third packet of the handshake arrives.
	if !wait(d.ctx, d.rtt*3/2) {
		return
	}
	var dialer net.Dialer
	far, err := dialer.DialContext(d.ctx, "tcp", d.upstream)
	if err != nil || !d.conns.add(far) {
		return
	}
	defer d.conns.remove(far)
	var both sync.WaitGroup
	both.Go(func() { d.oneWay(far, near) })
	both.Go(func() { d.oneWay(near, far) })
	both.Wait()
}

// piece is bytes under way; nil bytes are the end of the stream.
type piece struct {
	bytes []byte
	due   time.Time
}

func (d *Delay) oneWay(to, from net.Conn) {
	line := make(chan piece, flightBytes/(32<<10))
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(line)
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			due := time.Now().Add(d.rtt / 2)
			if n > 0 {
				line <- piece{append([]byte(nil), buf[:n]...), due}
			}
			if err != nil {
				line <- piece{nil, due}
				return
			}
		}
	})
	defer reader.Wait()
	broken := false
	for p := range line {
		if broken || !wait(d.ctx, time.Until(p.due)) {
			continue // drain, so that the reader can end
		}
		if p.bytes == nil {
			closeWrite(to)
			continue
		}
		if _, err := to.Write(p.bytes); err != nil {
			broken = true
			_ = from.Close()
		}
	}
}

// closeWrite hands the end of a stream on.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.(io.Closer).Close()
}

// wait waits; false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
