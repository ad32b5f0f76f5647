package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// clientLimit bounds every exchange with a server.
const clientLimit = 60 * time.Second

// Reply is one SMTP reply.
type Reply struct {
	Code int
	// Text holds the lines without their codes, joined by "\n".
	Text string
}

// ReplyError is a reply other than the one that was hoped for.
type ReplyError struct {
	// To is the command that was answered.
	To string
	Reply
}

func (e *ReplyError) Error() string {
	return fmt.Sprintf("%s: %d %s", e.To, e.Code, e.Text)
}

// Client is an SMTP client of one connection, written for tests: plain, strict
// about replies, and able to say anything. It belongs to one goroutine.
type Client struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	// Extensions are the EHLO keywords with their parameters.
	Extensions map[string]string
}

// Dial connects and says EHLO.
func Dial(ctx context.Context, addr string) (*Client, error) {
	dialer := net.Dialer{Timeout: clientLimit}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c := &Client{conn: conn, in: bufio.NewReader(conn), out: bufio.NewWriterSize(conn, 64<<10), Extensions: map[string]string{}}
	if err := c.greet(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) greet() error {
	if _, err := c.expect("greeting", 220); err != nil {
		return err
	}
	reply, err := c.Command(250, "EHLO client.lab.test")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(reply.Text, "\n")[1:] {
		keyword, params, _ := strings.Cut(line, " ")
		c.Extensions[strings.ToUpper(keyword)] = params
	}
	return nil
}

// Command sends one line and reads its reply, which must have the code want.
func (c *Client) Command(want int, format string, args ...any) (Reply, error) {
	line := fmt.Sprintf(format, args...)
	if err := c.write([]byte(line + "\r\n")); err != nil {
		return Reply{}, err
	}
	if err := c.flush(); err != nil {
		return Reply{}, err
	}
	return c.expect(line, want)
}

// Send delivers a message with DATA. Nil means that the server answered 250 to
// the end of it; a *ReplyError means that it refused; anything else leaves open
// what became of the message.
func (c *Client) Send(m Message) error {
	if err := c.envelope(m, "8BITMIME"); err != nil {
		return err
	}
	if _, err := c.Command(354, "DATA"); err != nil {
		return err
	}
	for line := range bytes.Lines(m.Text) {
		if line[0] == '.' {
			if err := c.write([]byte(".")); err != nil {
				return err
			}
		}
		if err := c.write(line); err != nil {
			return err
		}
	}
	_, err := c.Command(250, ".")
	return err
}

// SendChunks delivers a message with BDAT in chunks of at most size bytes
// (RFC 3030). Its errors are those of Send.
func (c *Client) SendChunks(m Message, size int) error {
	if err := c.envelope(m, "8BITMIME"); err != nil {
		return err
	}
	text := m.Text
	for {
		n := min(size, len(text))
		last := ""
		if n == len(text) {
			last = " LAST"
		}
		if err := c.write(fmt.Appendf(nil, "BDAT %d%s\r\n", n, last)); err != nil {
			return err
		}
		if err := c.write(text[:n]); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
		if _, err := c.expect("BDAT"+last, 250); err != nil {
			return err
		}
		if last != "" {
			return nil
		}
		text = text[n:]
	}
}

// Start gives a message's envelope and says DATA. What follows goes through
// Write, and Expect reads the replies.
func (c *Client) Start(m Message) error {
	if err := c.envelope(m, "8BITMIME"); err != nil {
		return err
	}
	_, err := c.Command(354, "DATA")
	return err
}

// Write sends bytes as they are.
func (c *Client) Write(b []byte) error {
	if err := c.write(b); err != nil {
		return err
	}
	return c.flush()
}

// Expect reads a reply, which must have the code want.
func (c *Client) Expect(want int) (Reply, error) { return c.expect("what was sent", want) }

// Close says QUIT where the server still listens, and hangs up.
func (c *Client) Close() {
	_ = c.conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.out.WriteString("QUIT\r\n")
	_ = c.out.Flush()
	_, _ = io.Copy(io.Discard, c.in)
	_ = c.conn.Close()
}

// Abort hangs up without a word.
func (c *Client) Abort() { _ = c.conn.Close() }

func (c *Client) envelope(m Message, bodyType string) error {
	if _, err := c.Command(250, "MAIL FROM:<%s> BODY=%s SIZE=%d", m.From, bodyType, len(m.Text)); err != nil {
		return err
	}
	for _, to := range m.To {
		if _, err := c.Command(250, "RCPT TO:<%s>", to); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) write(b []byte) error {
	_ = c.conn.SetDeadline(time.Now().Add(clientLimit))
	if _, err := c.out.Write(b); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func (c *Client) flush() error {
	if err := c.out.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func (c *Client) expect(to string, code int) (Reply, error) {
	reply, err := readReply(c.conn, c.in)
	if err != nil {
		return reply, fmt.Errorf("read reply to %s: %w", to, err)
	}
	if reply.Code != code {
		return reply, &ReplyError{To: to, Reply: reply}
	}
	return reply, nil
}

func readReply(conn net.Conn, in *bufio.Reader) (Reply, error) {
	var r Reply
	for {
		_ = conn.SetReadDeadline(time.Now().Add(clientLimit))
		line, err := in.ReadString('\n')
		if err != nil {
			return r, err
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 3 {
			return r, fmt.Errorf("malformed reply %q", line)
		}
		code, err := strconv.Atoi(line[:3])
		if err != nil || r.Code != 0 && r.Code != code {
			return r, fmt.Errorf("malformed reply %q", line)
		}
		if r.Code != 0 {
			r.Text += "\n"
		}
		r.Code = code
		if len(line) > 4 {
			r.Text += line[4:]
		}
		if len(line) == 3 || line[3] != '-' {
			return r, nil
		}
	}
}
