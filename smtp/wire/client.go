package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ClientConfig says how a Client speaks. Zero durations and counts take the
// defaults named at each field.
type ClientConfig struct {
	// Hostname is what EHLO or LHLO says; "localhost" if empty.
	Hostname string
	// LMTP speaks RFC 2033: LHLO, and one answer per recipient after the data.
	LMTP bool
	// TLS, if set, is used for STARTTLS where the server offers it.
	TLS *tls.Config
	// RequireTLS refuses to go on without TLS (ErrNoTLS).
	RequireTLS bool
	// Window is how many messages may be on their way unanswered; 16. With LMTP
	// it is 1: a server that answers once for several recipients must not put
	// answers and messages out of step.
	Window int
	// NoChunking uses DATA even where CHUNKING is offered.
	NoChunking bool
	// NoForward sends neither XCLIENT nor XFORWARD.
	NoForward bool
	// GreetingTimeout bounds the wait for the banner, and each step up to the
	// end of EHLO; 5 min (RFC 5321, section 4.5.3.2.1).
	GreetingTimeout time.Duration
	// CommandTimeout bounds the wait for a reply to a command; 5 min.
	CommandTimeout time.Duration
	// ProgressTimeout bounds each write of at most 32 KiB; 3 min.
	ProgressTimeout time.Duration
	// FinalTimeout bounds the wait for the answer to a message, counted from
	// its last byte; 10 min (RFC 5321, section 4.5.3.2.6).
	FinalTimeout time.Duration
	// IdleTimeout is how long a connection without any message is kept; 5 min.
	IdleTimeout time.Duration
}

func (c ClientConfig) withDefaults() ClientConfig {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&c.GreetingTimeout, 5*time.Minute)
	set(&c.CommandTimeout, 5*time.Minute)
	set(&c.ProgressTimeout, 3*time.Minute)
	set(&c.FinalTimeout, 10*time.Minute)
	set(&c.IdleTimeout, 5*time.Minute)
	if c.Hostname == "" {
		c.Hostname = "localhost"
	}
	if c.Window <= 0 {
		c.Window = 16
	}
	if c.LMTP {
		c.Window = 1
	}
	return c
}

// Errors of a connection.
var (
	// ErrNoTLS: TLS is required and the server does not offer it.
	ErrNoTLS = errors.New("server does not offer STARTTLS")
	// ErrTLS: the handshake failed, or the server refused STARTTLS.
	ErrTLS = errors.New("TLS not established")
	// ErrClosing: the server said 421 (RFC 5321, section 3.8).
	ErrClosing = errors.New("server closes the connection")
	// ErrClientClosed: Close or Abort was called.
	ErrClientClosed = errors.New("connection closed by us")
	// ErrIdle: nothing was sent for IdleTimeout.
	ErrIdle = errors.New("connection idle for too long")
)

var errClientAbandoned = errors.New("connection closed behind an abandoned message")

// ReplyError is a refusal of the connection itself: in the banner, at EHLO or
// at XCLIENT.
type ReplyError struct {
	// Command is what was refused; "banner" for the greeting.
	Command string
	Reply   Reply
}

// Error names the command and the server's words.
func (e *ReplyError) Error() string { return e.Command + ": " + e.Reply.String() }

// Extensions are the keywords of an EHLO answer in upper case, each with its
// parameters.
type Extensions map[string]string

// Has says whether the server offers a keyword.
func (e Extensions) Has(keyword string) bool {
	_, ok := e[keyword]
	return ok
}

// SizeBytes is the limit of RFC 1870; 0 where there is none.
func (e Extensions) SizeBytes() int64 {
	n, err := strconv.ParseInt(e["SIZE"], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// offers says whether keyword's parameters contain word.
func (e Extensions) offers(keyword, word string) bool {
	return slices.Contains(strings.Fields(strings.ToUpper(e[keyword])), word)
}

func parseExtensions(text string) Extensions {
	ext := Extensions{}
	lines := strings.Split(text, "\n")
	for _, line := range lines[1:] { // RFC 5321, section 4.1.1.1: the first is the name
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		// "AUTH=LOGIN" and the like are no keywords anyone here asks for.
		if word != "" {
			ext[strings.ToUpper(word)] = strings.TrimSpace(rest)
		}
	}
	return ext
}

// Client is one connection to an SMTP or LMTP server on which several messages
// may be on their way at once. Its methods may be called concurrently.
//
// One goroutine reads the answers; Close and Abort wait for its end.
type Client struct {
	cfg      ClientConfig
	conn     net.Conn
	br       *bufio.Reader
	bw       *bufio.Writer
	ext      Extensions
	tlsState *tls.ConnectionState
	banner   string

	turn  chan struct{} // held by whoever writes
	slots chan struct{} // one a message on its way
	buf   []byte        // content being sent; belongs to the holder of turn
	asked *Origin       // what XCLIENT said last; belongs to the holder of turn
	// noXclient: the server offers XCLIENT and refuses it; belongs to the holder
	// of turn.
	noXclient bool

	mu       sync.Mutex
	ops      []clientOp
	last     *flight // the message begun last
	quitting bool
	sent     int
	wrote    error // why a write failed
	err      error

	dead chan struct{} // closed with err
	done chan struct{} // closed when the reader has ended
}

// NewClient greets the server on conn and takes conn over: it is closed when
// NewClient fails and when the client ends. ctx bounds the greeting only.
func NewClient(ctx context.Context, conn net.Conn, cfg ClientConfig) (*Client, error) {
	c := &Client{
		cfg:  cfg.withDefaults(),
		turn: make(chan struct{}, 1),
		dead: make(chan struct{}), done: make(chan struct{}),
	}
	c.slots = make(chan struct{}, c.cfg.Window)
	c.attach(conn)
	stop := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // the read reports it
	err := c.greet(ctx)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.conn.Close() //nolint:errcheck // already lost
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return nil, err
	}
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		c.conn.Close() //nolint:errcheck // already lost
		return nil, err
	}
	c.arm()
	go c.read()
	return c, nil
}

// attach speaks on conn from now on; what was buffered before is dropped, so
// that nothing said in clear counts inside TLS.
func (c *Client) attach(conn net.Conn) {
	c.conn = conn
	c.br = bufio.NewReaderSize(conn, maxReplyLineBytes)
	c.bw = bufio.NewWriterSize(progressWriter{c}, 16<<10)
	if t, ok := conn.(*tls.Conn); ok {
		state := t.ConnectionState()
		c.tlsState = &state
	}
}

func (c *Client) greet(ctx context.Context) error {
	if t, ok := c.conn.(*tls.Conn); ok {
		if err := t.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrTLS, err)
		}
		c.attach(t)
	}
	rep, err := c.direct("")
	if err != nil {
		return fmt.Errorf("banner: %w", err)
	}
	if rep.Code != 220 {
		return &ReplyError{"banner", rep}
	}
	c.banner, _, _ = strings.Cut(rep.Text, "\n")
	if err := c.hello(); err != nil {
		return err
	}
	if c.tlsState != nil {
		return nil
	}
	if c.cfg.TLS == nil || !c.ext.Has("STARTTLS") {
		if c.cfg.RequireTLS {
			return ErrNoTLS
		}
		return nil
	}
	return c.startTLS(ctx)
}

func (c *Client) startTLS(ctx context.Context) error {
	rep, err := c.direct("STARTTLS")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	if rep.Code != 220 {
		return fmt.Errorf("%w: %w", ErrTLS, &ReplyError{"STARTTLS", rep})
	}
	t := tls.Client(c.conn, c.cfg.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	c.attach(t)
	// RFC 3207, section 4.2: what was learnt before is forgotten.
	return c.hello()
}

// hello says EHLO, or HELO to a server that does not know it (RFC 5321,
// section 3.2), or LHLO.
func (c *Client) hello() error {
	verb := "EHLO "
	if c.cfg.LMTP {
		verb = "LHLO "
	}
	rep, err := c.direct(verb + c.cfg.Hostname)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSpace(verb), err)
	}
	if rep.Permanent() && !c.cfg.LMTP && (rep.Code == 500 || rep.Code == 502) {
		c.ext = Extensions{}
		if rep, err = c.direct("HELO " + c.cfg.Hostname); err != nil {
			return fmt.Errorf("HELO: %w", err)
		}
		rep.Text = ""
	}
	if rep.Code != 250 {
		return &ReplyError{strings.TrimSpace(verb), rep}
	}
	c.ext = parseExtensions(rep.Text)
	return nil
}

// direct does one exchange before the reader runs; an empty line only reads.
func (c *Client) direct(line string) (Reply, error) {
	if err := c.conn.SetDeadline(time.Now().Add(c.cfg.GreetingTimeout)); err != nil {
		return Reply{}, err
	}
	if line != "" {
		if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
			return Reply{}, err
		}
	}
	return readReply(c.br)
}

// Extensions returns what the server offers; it must not be changed.
func (c *Client) Extensions() Extensions {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ext
}

// Banner is the first line of the greeting, without its code.
func (c *Client) Banner() string { return c.banner }

// TLS is the state of the connection's TLS; nil is plain text.
func (c *Client) TLS() *tls.ConnectionState { return c.tlsState }

// RemoteAddr is the server's address.
func (c *Client) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// Forwards says whether the server takes the origin of a message, by XCLIENT or
// XFORWARD, and the client uses it.
func (c *Client) Forwards() bool {
	ext := c.Extensions()
	return !c.cfg.NoForward && (ext.Has("XCLIENT") || ext.Has("XFORWARD"))
}

// Sent counts the messages that were answered, whatever the answer.
func (c *Client) Sent() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent
}

// Err is nil while the connection can be used.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Done is closed when the connection has ended; Err says why.
func (c *Client) Done() <-chan struct{} { return c.dead }

// Close waits for what is on its way, says QUIT and closes. ctx bounds all of
// it; whatever is unanswered by then is lost with the connection.
func (c *Client) Close(ctx context.Context) error {
	defer c.Abort()
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if err := c.settle(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.quitting = true
	c.mu.Unlock()
	_, err := c.command(ctx, opPlain, "QUIT\r\n")
	return err
}

// Abort closes at once and waits for the reader. What is unanswered is lost
// with the connection.
func (c *Client) Abort() {
	c.fail(ErrClientClosed)
	<-c.done
}

// Noop asks the server whether it is still there.
func (c *Client) Noop(ctx context.Context) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	rep, err := c.command(ctx, opPlain, "NOOP\r\n")
	if err == nil && !rep.Positive() {
		err = &ReplyError{"NOOP", rep}
	}
	return err
}

// progressWriter writes in small pieces, each with a deadline of its own.
type progressWriter struct{ c *Client }

const progressBytes = 32 << 10

func (w progressWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		piece := p[done:min(len(p), done+progressBytes)]
		if err := w.c.conn.SetWriteDeadline(time.Now().Add(w.c.cfg.ProgressTimeout)); err != nil {
			return done, err
		}
		n, err := w.c.conn.Write(piece)
		done += n
		if err != nil {
			return done, err
		}
		w.c.arm() // the peer takes bytes: its answer may take its time from here
	}
	return done, nil
}
