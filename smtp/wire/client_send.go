package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// chunkBytes is the size of a BDAT chunk: the content held in memory per
// connection.
const chunkBytes = 128 << 10

// Send sends m behind what is already on its way and returns when its last byte
// is handed over; it waits while Window messages are unanswered. done is called
// exactly once, with one answer per recipient in order, from another goroutine
// or from Send itself; it must not block or call the client.
//
// An error means that the connection cannot be used any more; done is called
// all the same. ctx bounds Send, not the wait for the answer.
func (c *Client) Send(ctx context.Context, m *Outgoing, done func([]Answer)) error {
	if err := c.lock(ctx); err != nil {
		done(clientRefuse(m, Reply{}, err))
		return err
	}
	defer c.unlock()
	rep, err := c.precheck(ctx, m)
	if err != nil {
		done(clientRefuse(m, rep, err))
		return nil
	}
	body, err := c.openBody(ctx, m)
	if err != nil {
		done(clientRefuse(m, Reply{}, err))
		return nil
	}
	defer body.close()
	if !c.chunking() && body.eof && bareBreaks(body.chunk) {
		done(clientRefuse(m, contentReply, ErrContent))
		return nil
	}
	if err := c.introduce(ctx, m); err != nil {
		answers := clientRefuse(m, Reply{}, err)
		for i := range answers {
			if !errors.Is(err, errOtherClient) {
				answers[i].Stage = StageMail // it may be about this message's origin
			}
		}
		done(answers)
		return err
	}
	if !c.ext.Has("PIPELINING") {
		err = c.settle(ctx)
	}
	if err == nil {
		err = c.slot(ctx)
	}
	if err != nil {
		done(clientRefuse(m, Reply{}, err))
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })
	defer stop()
	f := newFlight(m, done)
	err = c.transact(ctx, f, body)
	c.conclude(f, err)
	return c.Err()
}

var contentReply = Reply{Code: 550, Enhanced: "5.6.11", Text: "bare CR or LF cannot be sent with DATA"}

// clientRefuse answers all recipients alike without having asked the server.
func clientRefuse(m *Outgoing, rep Reply, err error) []Answer {
	answers := make([]Answer, len(m.To))
	for i := range answers {
		answers[i] = Answer{Reply: rep, Err: err, At: time.Now()}
	}
	return answers
}

func (c *Client) chunking() bool { return c.ext.Has("CHUNKING") && !c.cfg.NoChunking }

// precheck finds what the server cannot take.
func (c *Client) precheck(ctx context.Context, m *Outgoing) (Reply, error) {
	if rep, lacks := lacking(m, c.ext, c.tlsState != nil); lacks {
		return rep, ErrLacks
	}
	if badEnvelope(m) {
		return Reply{Code: 550, Enhanced: "5.5.4", Text: "envelope cannot be written as a command"}, ErrContent
	}
	if m.Body == "BINARYMIME" && c.cfg.NoChunking {
		return Reply{Code: 554, Enhanced: "5.6.1", Text: "BINARYMIME needed, chunking is off"}, ErrLacks
	}
	if m.Body == "8BITMIME" && !c.ext.Has("8BITMIME") {
		// RFC 6152, section 3: 8-bit content needs the extension. A label alone
		// does not.
		eight, err := has8bit(ctx, m)
		if err != nil {
			return Reply{}, fmt.Errorf("%w: %w", ErrOpen, err)
		}
		if eight {
			return Reply{Code: 554, Enhanced: "5.6.1", Text: "8BITMIME needed, the next hop does not offer it"}, ErrLacks
		}
	}
	return Reply{}, nil
}

// transact writes one message. Its error is for the recipients that get no
// answer.
func (c *Client) transact(ctx context.Context, f *flight, body *bodyReader) error {
	reset := c.open()
	c.mu.Lock()
	c.last = f
	c.mu.Unlock()
	if reset {
		// An earlier message may leave its transaction open when it is refused.
		if _, err := c.step(ctx, clientOp{kind: opReset, flight: f}, []byte("RSET\r\n")); err != nil {
			return err
		}
	}
	if err := c.forward(ctx, f); err != nil {
		return err
	}
	ok, err := c.step(ctx, clientOp{kind: opMail, flight: f}, mailLine(f.m, c.ext))
	if err != nil || !ok {
		return err
	}
	some := false
	for i, r := range f.m.To {
		ok, err := c.step(ctx, clientOp{kind: opRcpt, flight: f, rcpt: i}, []byte(rcptLine(r, c.ext)))
		if err != nil {
			return err
		}
		some = some || ok
	}
	if !some {
		return nil // without PIPELINING it is known by now that nobody is left
	}
	if c.chunking() {
		return c.sendChunks(ctx, f, body)
	}
	return c.sendData(ctx, f, body)
}

// open says that the server may have a transaction open: the message begun last
// is not answered yet, or was not accepted.
func (c *Client) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last != nil && !c.last.good
}

// step writes a command of a message. With PIPELINING (RFC 2920) it goes on at
// once and says true; without, it waits and says whether the answer was 2xx.
func (c *Client) step(ctx context.Context, op clientOp, line []byte) (bool, error) {
	pipelining := c.ext.Has("PIPELINING")
	if !pipelining {
		op.reply = make(chan Reply, 1)
	}
	if err := c.push(op); err != nil {
		return false, err
	}
	if err := c.write(line); err != nil {
		return false, err
	}
	if pipelining {
		return true, nil
	}
	if err := c.flush(); err != nil {
		return false, err
	}
	rep, err := c.await(ctx, op.reply)
	return rep.Positive(), err
}

// sendChunks sends the content with BDAT, RFC 3030. Each chunk is in memory
// before it is announced: a disk that fails cuts no chunk short.
func (c *Client) sendChunks(ctx context.Context, f *flight, body *bodyReader) error {
	for {
		kind, word := opChunk, "\r\n"
		if body.eof {
			kind, word = opFinal, " LAST\r\n"
		}
		head := append(strconv.AppendInt([]byte("BDAT "), int64(len(body.chunk)), 10), word...)
		if err := c.sendChunk(ctx, clientOp{kind: kind, flight: f}, head, body.chunk); err != nil || body.eof {
			return err
		}
		c.mu.Lock()
		failed := f.failed
		c.mu.Unlock()
		if failed {
			return c.abandon(ctx, nil)
		}
		if err := body.next(); err != nil {
			return c.abandon(ctx, fmt.Errorf("%w: %w", ErrOpen, err))
		}
	}
}

// abandon gives up a message some of whose chunks were sent: it takes the
// answers still to come and ends the connection. RSET alone is not enough:
// go-smtp v0.25.1 may give the next message the answer of the abandoned one.
func (c *Client) abandon(ctx context.Context, why error) error {
	_, err := c.command(ctx, opPlain, "RSET\r\n")
	if why == nil {
		why = err
	}
	c.fail(errClientAbandoned)
	return why
}

// sendChunk hands one chunk over, and waits for its answer where the server has
// no PIPELINING.
func (c *Client) sendChunk(ctx context.Context, op clientOp, head, chunk []byte) error {
	wait := !c.ext.Has("PIPELINING")
	if wait {
		op.reply = make(chan Reply, 1)
	}
	// The last byte of all is held back until an answer may be one to the whole
	// message.
	part, last := chunk, op.kind == opFinal && len(chunk) > 0
	if last {
		part = chunk[:len(chunk)-1]
		c.setWriting(op.flight, true)
	}
	if err := c.push(op); err != nil {
		return err
	}
	if err := c.write(head); err != nil {
		return err
	}
	if err := c.write(part); err != nil {
		return err
	}
	if last {
		c.setWriting(op.flight, false)
	}
	if err := c.write(chunk[len(part):]); err != nil {
		return err
	}
	if err := c.flush(); err != nil || !wait {
		return err
	}
	_, err := c.await(ctx, op.reply)
	return err
}

// setWriting says whether content of f's last command is still to be sent.
func (c *Client) setWriting(f *flight, writing bool) {
	c.mu.Lock()
	f.writing = writing
	c.mu.Unlock()
}

// sendData sends the content with DATA.
func (c *Client) sendData(ctx context.Context, f *flight, body *bodyReader) error {
	ch := make(chan Reply, 1)
	if err := c.push(clientOp{kind: opData, flight: f, reply: ch}); err != nil {
		return err
	}
	if err := c.write([]byte("DATA\r\n")); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	rep, err := c.await(ctx, ch)
	if err != nil || rep.Code != 354 {
		return err
	}
	c.mu.Lock()
	nobody := len(f.accepted) == 0
	f.writing = !nobody
	c.mu.Unlock()
	if nobody && c.cfg.LMTP {
		// RFC 2033, section 4.2 wants 503 here; what follows is anyone's guess.
		err := fmt.Errorf("%w: DATA accepted for nobody", ErrReply)
		c.fail(err)
		return err
	}
	if err := c.push(clientOp{kind: opFinal, flight: f}); err != nil {
		return err
	}
	if nobody {
		// RFC 2920, section 3.1: the server wants an end of data all the same.
		if err := c.write([]byte(".\r\n")); err != nil {
			return err
		}
		return c.flush()
	}
	dots := dotStuffer{w: c.bw, start: true}
	for {
		if err := dots.write(body.chunk); err != nil {
			return c.cutData(f, err)
		}
		if body.eof {
			break
		}
		if err := body.next(); err != nil {
			err = fmt.Errorf("%w: %w", ErrOpen, err)
			c.mu.Lock()
			f.err = err
			c.mu.Unlock()
			c.fail(err) // the server must not take what it has for all there is
			return err
		}
	}
	c.setWriting(f, false)
	if err := dots.end(); err != nil {
		return c.cutData(f, err)
	}
	return c.flush()
}

// cutData ends the connection in the middle of DATA: only that keeps the server
// from taking what it has for the whole message.
func (c *Client) cutData(f *flight, err error) error {
	if !errors.Is(err, ErrContent) {
		return c.broken(err)
	}
	c.mu.Lock()
	f.setAccepted(contentReply, StageNone)
	for _, i := range f.accepted {
		f.answers[i].Err = ErrContent
	}
	c.mu.Unlock()
	c.fail(err)
	return err
}

// bodyReader gives prefix and content in chunks and knows which is the last.
type bodyReader struct {
	rc    io.ReadCloser
	src   io.Reader
	buf   []byte // chunkBytes + 1
	carry int    // bytes at the start of buf that belong to the next chunk
	chunk []byte
	eof   bool
	want  int64 // bytes there should be; 0 if unknown
	total int64 // bytes so far
}

// openBody opens the content and reads its first chunk, before anything is said
// to the server.
func (c *Client) openBody(ctx context.Context, m *Outgoing) (*bodyReader, error) {
	rc, err := m.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	if c.buf == nil {
		c.buf = make([]byte, chunkBytes+1)
	}
	b := &bodyReader{rc: rc, src: io.MultiReader(bytes.NewReader(m.Prefix), rc), buf: c.buf, want: m.SizeBytes}
	if len(m.Prefix) == 0 {
		b.src = rc
	}
	if err := b.next(); err != nil {
		b.close()
		return nil, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	return b, nil
}

func (b *bodyReader) close() { b.rc.Close() } //nolint:errcheck // read only

// next reads the next chunk. One byte more than a chunk tells whether it is the
// last.
func (b *bodyReader) next() error {
	if b.carry > 0 {
		b.buf[0] = b.buf[len(b.buf)-1]
	}
	// io.ReadFull would make an unexpected end of the source, which is an error,
	// look like its end.
	n := b.carry
	for n < len(b.buf) {
		k, err := b.src.Read(b.buf[n:])
		n += k
		b.total += int64(k)
		if err == io.EOF && b.want > 0 && b.total != b.want {
			return fmt.Errorf("%d bytes instead of %d", b.total, b.want)
		}
		if err == io.EOF { // a wrapped EOF is not the end
			b.chunk, b.eof = b.buf[:n], true
			return nil
		}
		if err != nil {
			return err
		}
	}
	b.chunk, b.carry = b.buf[:len(b.buf)-1], 1
	return nil
}
