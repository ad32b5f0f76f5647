package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// maxEndpointConns bounds the connections that the endpoint carries.
const maxEndpointConns = 4096

// endpointDial bounds the dial to home. Longer, and a scan would wait for it.
const endpointDial = 300 * time.Millisecond

// Address is a Redis server as it is reached: TLS is nil for a plain connection.
type Address struct {
	Addr string
	TLS  *tls.Config
}

// dial connects, the handshake of TLS included.
func (a Address) dial(ctx context.Context) (net.Conn, error) {
	conn, err := (&net.Dialer{KeepAlive: 10 * time.Second}).DialContext(ctx, "tcp", a.Addr)
	if err != nil || a.TLS == nil {
		return conn, err
	}
	secured := tls.Client(conn, a.TLS)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

// Endpoint is the write endpoint: a listener on loopback that carries every
// connection to the Redis that takes writes now. It knows nothing of Redis: what
// a client says, its AUTH included, arrives as it was said, and nothing is added.
// Between two homes it accepts and closes at once, so that nobody waits.
type Endpoint struct {
	listen string
	log    *slog.Logger
	l      net.Listener

	mu      sync.Mutex
	target  Address
	turn    uint64 // counts the changes of target
	carried map[*carriage]struct{}
	refused uint64
	wg      sync.WaitGroup
}

// carriage is one connection through the endpoint.
type carriage struct {
	client, server net.Conn
	cancel         context.CancelFunc
}

// close ends both sides at once: a reset, so that nothing lingers.
func (c *carriage) close() {
	c.cancel()
	if c.server == nil {
		_ = c.client.Close()
		return
	}
	for _, conn := range []net.Conn{c.client, c.server} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// NewEndpoint returns an endpoint for listen, host:port on loopback. It leads
// nowhere until Lead says where.
func NewEndpoint(listen string, log *slog.Logger) *Endpoint {
	return &Endpoint{listen: listen, log: log, carried: map[*carriage]struct{}{}}
}

// Listen opens the port.
func (e *Endpoint) Listen(ctx context.Context) error {
	var err error
	if e.l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", e.listen); err != nil {
		return fmt.Errorf("listen for writes: %w", err)
	}
	return nil
}

// Addr is where it listens, after Listen.
func (e *Endpoint) Addr() string { return e.l.Addr().String() }

// Target is where it leads; the empty string is nowhere.
func (e *Endpoint) Target() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.target.Addr
}

// Carried is how many connections it carries, and how many it has refused.
func (e *Endpoint) Carried() (now int, refused uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.carried), e.refused
}

// Lead changes where connections lead; the zero Address is nowhere. Old
// connections are closed before it returns: they may hold a write to the wrong server.
func (e *Endpoint) Lead(to Address) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.target.Addr == to.Addr {
		return
	}
	e.log.Info("write endpoint leads elsewhere", "from", e.target.Addr, "to", to.Addr, "closed", len(e.carried))
	e.target = to
	e.turn++
	for c := range e.carried {
		c.close()
		delete(e.carried, c)
	}
}

// Run serves until ctx ends, and returns when every connection is closed.
func (e *Endpoint) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = e.l.Close() })
	defer stop()
	var err error
	for {
		var conn net.Conn
		if conn, err = e.l.Accept(); err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				// A client that left, or no file descriptor for a moment.
				var temporary net.Error
				if errors.As(err, &temporary) && pause(ctx, 50*time.Millisecond) {
					continue
				}
			}
			break
		}
		e.admit(ctx, conn)
	}
	e.Lead(Address{})
	e.wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("write endpoint: %w", errors.Join(err, e.l.Close()))
}

// admit carries conn, or closes it.
func (e *Endpoint) admit(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	c := &carriage{client: conn, cancel: cancel}
	e.mu.Lock()
	to, turn := e.target, e.turn
	if to.Addr == "" || len(e.carried) >= maxEndpointConns {
		e.refused++
		e.mu.Unlock()
		c.close()
		return
	}
	e.carried[c] = struct{}{}
	e.mu.Unlock()
	e.wg.Go(func() { e.carry(ctx, c, to, turn) })
}

// carry connects to home and copies both ways until one side ends.
func (e *Endpoint) carry(ctx context.Context, c *carriage, to Address, turn uint64) {
	defer func() {
		c.close()
		e.mu.Lock()
		delete(e.carried, c)
		e.mu.Unlock()
	}()
	dialing, cancel := context.WithTimeout(ctx, endpointDial)
	server, err := to.dial(dialing)
	cancel()
	if err != nil {
		e.log.Debug("write endpoint cannot dial", "to", to.Addr, "err", err)
		return
	}
	e.mu.Lock()
	if e.turn != turn {
		e.mu.Unlock()
		_ = server.Close()
		return
	}
	c.server = server
	e.mu.Unlock()
	splice(c.client, server)
}

// splice copies both ways and closes both when one way has ended.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // its end is the end of the connection
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	wg.Wait()
}

// pause waits for d; false where ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
