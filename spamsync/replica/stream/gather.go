package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// lowWaterBytes is how much may wait in the kernel before it wakes anybody.
const lowWaterBytes = 128 << 10

// gatherer reads a connection now and then instead of whenever a byte comes: on one
// machine the waking of the reader is part of what every write costs the server.
type gatherer struct {
	raw   syscall.RawConn
	every time.Duration
	timer *time.Timer

	// Of the call that is at work.
	ctx   context.Context //nolint:containedctx // io.Reader has no place for it
	until time.Time
}

// newGatherer returns nil where the connection is not an ordinary one.
func newGatherer(conn net.Conn, every time.Duration) *gatherer {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	// Reads that find nothing must come back: no deadline from the handshake.
	if err := errors.Join(tcp.SetReadDeadline(time.Time{}), lowWater(raw)); err != nil {
		return nil
	}
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &gatherer{raw: raw, every: every, timer: timer}
}

func lowWater(raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, lowWaterBytes)
	}); e != nil {
		return e
	}
	return err
}

// Read implements io.Reader.
func (g *gatherer) Read(p []byte) (int, error) {
	for {
		n, err := g.try(p)
		if !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR) {
			return n, err
		}
		wait := min(g.every, time.Until(g.until))
		if wait <= 0 {
			return 0, os.ErrDeadlineExceeded
		}
		g.timer.Reset(wait)
		select {
		case <-g.timer.C:
		case <-g.ctx.Done():
			g.timer.Stop()
			return 0, g.ctx.Err()
		}
	}
}

// try reads what is there.
func (g *gatherer) try(p []byte) (n int, err error) {
	if e := g.raw.Read(func(fd uintptr) bool {
		n, err = syscall.Read(int(fd), p)
		return true
	}); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}
