package wire

import (
	"bufio"
	"compress/flate"
	"io"
	"net"
	"time"
)

// progressBytes is how much must pass within Config.Timeout in either direction.
const progressBytes = 32 << 10

// line is a connection on which nothing waits for ever: each response, each 32 KiB of
// a body and each write has Config.Timeout.
type line struct {
	net.Conn
	timeout time.Duration // of reads
	writing time.Duration // of writes; never changed
	left    int
	// in and out count bytes as they are on the wire.
	in, out int64
}

// fresh starts the time of a new response.
func (l *line) fresh() { l.left = 0 }

// patience changes the time-out, for IDLE.
func (l *line) patience(d time.Duration) { l.timeout, l.left = d, 0 }

// Read gives a peer that dribbles no more time than one that is silent.
func (l *line) Read(p []byte) (int, error) {
	if l.left <= 0 {
		if err := l.SetReadDeadline(time.Now().Add(l.timeout)); err != nil {
			return 0, err
		}
		l.left = progressBytes
	}
	n, err := l.Conn.Read(p)
	l.left -= n
	l.in += int64(n)
	return n, err
}

// Write sends in pieces, each with its own deadline.
func (l *line) Write(p []byte) (int, error) {
	done := 0
	for {
		piece := p[done:min(len(p), done+progressBytes)]
		if err := l.SetWriteDeadline(time.Now().Add(l.writing)); err != nil {
			return done, err
		}
		n, err := l.Conn.Write(piece)
		done += n
		l.out += int64(n)
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// attach speaks on conn from now on. Nothing that was read before counts.
func (c *Client) attach(conn net.Conn) {
	c.conn = conn
	c.br = bufio.NewReaderSize(conn, progressBytes)
	c.bw = bufio.NewWriterSize(conn, progressBytes)
	c.dec = decoder{br: c.br, lim: &c.cfg.Limits}
}

// deflate compresses both directions from now on (RFC 4978).
func (c *Client) deflate() error {
	if c.br.Buffered() > 0 {
		return protocol("data between the answer to COMPRESS and its start")
	}
	w, err := flate.NewWriter(c.conn, flate.BestSpeed)
	if err != nil {
		return err
	}
	var r io.Reader = flate.NewReader(bufio.NewReaderSize(c.conn, progressBytes))
	c.br = bufio.NewReaderSize(r, progressBytes)
	c.bw = bufio.NewWriterSize(w, progressBytes)
	c.dec.br = c.br
	c.flushers = append(c.flushers, w)
	return nil
}

// Traffic returns the bytes received and sent so far, as they are on the wire.
func (c *Client) Traffic() (in, out int64) { return c.line.in, c.line.out }
