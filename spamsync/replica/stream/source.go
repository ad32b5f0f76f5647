package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Source has the commands of one server after a point. The backlog of the server
// is one (Backlog), a journal another.
type Source interface {
	// Open returns the commands after from, in the order in which they happened, up
	// to the place to; the zero to means up to where the server is now. ErrNotCovered
	// says that they are gone for good, and no command is returned; any other error
	// says nothing about them. It may be called concurrently and repeated, and gives
	// the same commands each time.
	Open(ctx context.Context, from, to Point) (Iterator, error)
}

// Iterator hands out commands one after another, for one goroutine.
type Iterator interface {
	// Next returns the next command, whose words are valid until the next call, and
	// io.EOF at the end. Any other error ends it: what is missing is unknown.
	Next(ctx context.Context) (Command, error)
	// Close frees what it holds. It may be called at any time.
	Close() error
}

// Backlog is what a server keeps of its own stream in memory. It does not survive a
// crash: what a server did between its last save and a crash is in no backlog, and
// this source cannot tell. Where there is a journal, it is asked first.
type Backlog struct {
	// Options say how to reach the server.
	Options Options
}

var _ Source = Backlog{}

// ackEvery is how often a backlog reader tells the server that it is there.
const ackEvery = time.Second

// Open implements Source.
func (b Backlog) Open(ctx context.Context, from, to Point) (Iterator, error) {
	info, err := FetchInfo(ctx, b.Options)
	if err != nil {
		return nil, err
	}
	if to.IsZero() {
		to = info.Now
	}
	if to.ID != info.Now.ID {
		return nil, fmt.Errorf("read backlog up to %v: %w: the server is at %v", to, ErrNotCovered, info.Now)
	}
	if from.ID == info.Before.ID && from.Offset > info.Before.Offset {
		// The server crashed and came back at an older place. All it did under that id
		// up to from is known to who asks; what it did afterwards begins here.
		from = info.Before
	}
	c, err := Dial(ctx, b.Options)
	if err != nil {
		return nil, err
	}
	at, err := c.Psync(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("read backlog from %v: %w", from, err)
	}
	if at.ID != to.ID {
		return nil, errors.Join(fmt.Errorf("read backlog up to %v: %w: the server goes on as %v", to, ErrNotCovered, at), c.Close())
	}
	return &backlogIterator{conn: c, to: to.Offset, acked: time.Now()}, nil
}

type backlogIterator struct {
	conn  *Conn
	to    int64
	acked time.Time
}

// Next implements Iterator.
func (b *backlogIterator) Next(ctx context.Context) (Command, error) {
	if b.conn.At().Offset >= b.to {
		return Command{}, io.EOF
	}
	if now := time.Now(); now.Sub(b.acked) > ackEvery {
		b.acked = now
		if err := b.conn.Ack(b.conn.At().Offset); err != nil {
			return Command{}, err
		}
	}
	cmd, err := b.conn.Next(ctx)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: the server closed its stream", io.ErrUnexpectedEOF)
	}
	return cmd, err
}

// Close implements Iterator.
func (b *backlogIterator) Close() error { return b.conn.Close() }
