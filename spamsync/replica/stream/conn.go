package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options say how to reach a server.
type Options struct {
	// Addr is host:port.
	Addr string
	// User and Password of AUTH; an empty password means none.
	User, Password string
	// TLS, where set, is used.
	TLS *tls.Config
	// Dial replaces the ordinary dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Announce is the port that INFO replication of the server shows for this
	// replica, 1 by default: no real one has it, so who counts replicas can tell.
	Announce int
	// Timeout bounds the dial, every step of the handshake and every write; 5 s by
	// default.
	Timeout time.Duration
	// Silence is how long nothing may come before the connection counts as dead;
	// 60 s by default. Redis sends a PING every 10 s.
	Silence time.Duration
	// MaxCommandBytes bounds one command; 512 MiB by default, as Redis does.
	MaxCommandBytes int64
	// Gather, where set, is how often a plain connection is looked at, instead of
	// whenever something comes: cheaper for a server on the same machine, and for
	// who reads.
	Gather time.Duration
}

// AnnouncedPort is the port under which Redis lists a Conn among its replicas,
// where Options say nothing else.
const AnnouncedPort = 1

func (o Options) withDefaults() Options {
	if o.Announce == 0 {
		o.Announce = AnnouncedPort
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Silence == 0 {
		o.Silence = time.Minute
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	return o
}

// Conn is a connection that poses as a replica. Next and Psync belong to one
// goroutine; Ack and Close may be called from any.
type Conn struct {
	opts Options
	conn net.Conn
	r    *Reader
	// gather is set from Psync on, where Options want it.
	gather *gatherer

	writing sync.Mutex
}

// Dial connects and authenticates; it does not ask for a stream yet. A refusal of
// the server is ErrRefused with its words.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	o = o.withDefaults()
	dialing, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	conn, err := o.Dial(dialing, "tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial redis: %w", err)
	}
	if o.TLS != nil {
		secured := tls.Client(conn, o.TLS)
		if err := secured.HandshakeContext(dialing); err != nil {
			return nil, errors.Join(fmt.Errorf("dial redis: %w", err), conn.Close())
		}
		conn = secured
	}
	c := &Conn{opts: o, conn: conn}
	c.r = NewReader(conn, Point{}, UnknownDB, false, o.MaxCommandBytes)
	if o.Password != "" {
		auth := []string{"AUTH", o.Password}
		if o.User != "" {
			auth = []string{"AUTH", o.User, o.Password}
		}
		if _, err := c.ask(ctx, auth...); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Close ends the connection; a Next that waits returns.
func (c *Conn) Close() error { return c.conn.Close() }

// At is the place after the last command read.
func (c *Conn) At() Point { return c.r.At() }

// Psync asks for everything after p, a place outside a transaction. It returns
// that place under the id that the server goes on with. A server that would have
// to send its whole data set is a FullResyncError (an ErrNotCovered), other
// refusals are ErrRefused; the connection is closed then. A server that says
// nothing is neither: the error is a time-out, and nothing is known.
//
// The zero Point asks where the server is, and is always a FullResyncError.
func (c *Conn) Psync(ctx context.Context, p Point) (Point, error) {
	at, err := c.psync(ctx, p)
	if err != nil {
		return Point{}, errors.Join(err, c.Close())
	}
	c.r.id, c.r.offset = at.ID, at.Offset
	if c.opts.Gather > 0 {
		if c.gather = newGatherer(c.conn, c.opts.Gather); c.gather != nil {
			c.r.r = c.gather
		}
	}
	return at, nil
}

func (c *Conn) psync(ctx context.Context, p Point) (Point, error) {
	for _, words := range [][]string{
		{"REPLCONF", "listening-port", strconv.Itoa(c.opts.Announce)},
		{"REPLCONF", "capa", "psync2"},
	} {
		if _, err := c.ask(ctx, words...); err != nil {
			return Point{}, err
		}
	}
	id, from := "?", int64(-1)
	if !p.IsZero() {
		// PSYNC names the first byte it wants, and counts from 1.
		id, from = p.ID, p.Offset+1
	}
	line, err := c.ask(ctx, "PSYNC", id, strconv.FormatInt(from, 10))
	if err != nil {
		return Point{}, err
	}
	words := strings.Fields(line)
	switch {
	case len(words) == 0:
		// An empty line keeps a replica waiting while a data set is prepared.
		return Point{}, &FullResyncError{}
	case words[0] == "+CONTINUE" && !p.IsZero():
		if len(words) > 1 {
			p.ID = words[1]
		}
		return p, nil
	case words[0] == "+FULLRESYNC" && len(words) == 3:
		offset, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			break
		}
		return Point{}, &FullResyncError{Now: Point{ID: words[1], Offset: offset}}
	}
	return Point{}, fmt.Errorf("%w: answer to PSYNC: %q", ErrProtocol, line)
}

// ask sends a command and returns the line of the answer, with its mark.
func (c *Conn) ask(ctx context.Context, words ...string) (string, error) {
	if err := c.send(words...); err != nil {
		return "", fmt.Errorf("%s: %w", words[0], err)
	}
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	if err := c.conn.SetReadDeadline(time.Now().Add(c.opts.Timeout)); err != nil {
		return "", fmt.Errorf("%s: %w", words[0], err)
	}
	line, err := c.r.line()
	if err != nil {
		return "", fmt.Errorf("%s: %w", words[0], errors.Join(err, context.Cause(ctx)))
	}
	if text, bad := strings.CutPrefix(line, "-"); bad {
		return "", fmt.Errorf("%s: %w: %s", words[0], ErrRefused, text)
	}
	return line, nil
}

// interrupt ends a read for good.
func (c *Conn) interrupt() { _ = c.conn.Close() }

// Next waits for the next command. The end of ctx closes the connection.
func (c *Conn) Next(ctx context.Context) (Command, error) {
	cmd, ok, err := c.NextUntil(ctx, time.Time{})
	if err == nil && !ok {
		err = fmt.Errorf("read replication stream: nothing in %v: %w", c.opts.Silence, os.ErrDeadlineExceeded)
	}
	return cmd, err
}

// NextUntil is Next that gives up at until, where that is not zero; ok is false
// then, and the connection as good as before.
func (c *Conn) NextUntil(ctx context.Context, until time.Time) (cmd Command, ok bool, err error) {
	if cmd, err = c.r.Buffered(); !errors.Is(err, errMore) {
		return cmd, err == nil, err
	}
	if err := ctx.Err(); err != nil {
		return Command{}, false, err
	}
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	deadline := time.Now().Add(c.opts.Silence)
	own := true
	if !until.IsZero() && until.Before(deadline) {
		deadline, own = until, false
	}
	if c.gather != nil {
		c.gather.ctx, c.gather.until = ctx, deadline
	} else if err := c.conn.SetReadDeadline(deadline); err != nil {
		return Command{}, false, fmt.Errorf("read replication stream: %w", errors.Join(err, ctx.Err()))
	}
	cmd, err = c.r.Next()
	if err == nil {
		return cmd, true, nil
	}
	if !own && errors.Is(err, os.ErrDeadlineExceeded) {
		return Command{}, false, nil
	}
	return Command{}, false, fmt.Errorf("read replication stream: %w", errors.Join(err, ctx.Err()))
}

// Ack tells the server that everything before offset is safe here. Redis counts a
// replica that says nothing for 60 s as dead, and answers WAIT by it.
func (c *Conn) Ack(offset int64) error {
	if err := c.send("REPLCONF", "ACK", strconv.FormatInt(offset, 10)); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

func (c *Conn) send(words ...string) error {
	b := append(make([]byte, 0, 128), '*')
	b = append(strconv.AppendInt(b, int64(len(words)), 10), "\r\n"...)
	for _, w := range words {
		b = append(strconv.AppendInt(append(b, '$'), int64(len(w)), 10), "\r\n"...)
		b = append(append(b, w...), "\r\n"...)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.opts.Timeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

// DB is the database the next command works on, UnknownDB before the first SELECT.
func (c *Conn) DB() int { return c.r.DB() }

// InTx says whether a MULTI is open.
func (c *Conn) InTx() bool { return c.r.InTx() }
