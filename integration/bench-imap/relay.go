package main

import (
	"context"
	"io"
	"net"
	"sync/atomic"

	"understudy/integration/lab"
)

// relay counts the bytes of all connections to a server, both directions.
type relay struct {
	addr  string
	bytes atomic.Int64
}

func newRelay(h *lab.Program, upstream string) *relay {
	l := lab.Listen(h, "127.0.0.1:0")
	r := &relay{addr: l.Addr().String()}
	h.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go r.carry(h.Context(), near, upstream)
		}
	}()
	return r
}

func (r *relay) carry(ctx context.Context, near net.Conn, upstream string) {
	far, err := (&net.Dialer{}).DialContext(ctx, "tcp", upstream)
	if err != nil {
		_ = near.Close()
		return
	}
	end := func() { _ = near.Close(); _ = far.Close() }
	stop := context.AfterFunc(ctx, end)
	defer stop()
	go func() { _, _ = io.Copy(far, counted{near, r}); end() }()
	_, _ = io.Copy(near, counted{far, r})
	end()
}

type counted struct {
	net.Conn
	r *relay
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.r.bytes.Add(int64(n))
	return n, err
}
