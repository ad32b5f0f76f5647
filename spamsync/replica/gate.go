package replica

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of the handshake of replication: a Redis that is loading answers late, a
// stranger says too much.
const (
	gateHandshake     = 30 * time.Second
	gateDial          = 2 * time.Second
	gateLineBytes     = 4096
	gateHandshakeMost = 64 // commands
	maxGateLinks      = 2
)

// Refusal is what the gate did not let pass.
type Refusal struct {
	At time.Time
	// Text says what it was.
	Text string
	// Full: the other server offered a full copy under id FullID.
	Full   bool
	FullID string
	// Flush: the other server empties its data. It is remembered until Forget.
	Flush bool
}

// Gate stands between this site's Redis and the one it follows. The replica
// dials the gate, the gate dials the master, and passes on the handshake of
// replication and nothing else. A +CONTINUE passes; a +FULLRESYNC, by which the
// replica would throw its data away, only for the one history that Permit names.
// In the stream after it a FLUSHALL or FLUSHDB does not pass: the connection is
// closed before its first byte.
//
// Credentials are the replica's own (masteruser, masterauth): the gate has none.
type Gate struct {
	listen string
	master Address
	log    *slog.Logger
	l      net.Listener

	mu      sync.Mutex
	open    bool
	permit  string
	refusal Refusal
	links   map[*carriage]struct{}
	wg      sync.WaitGroup
}

// NewGate returns a closed gate to master for listen, host:port on loopback.
func NewGate(listen string, master Address, log *slog.Logger) *Gate {
	return &Gate{listen: listen, master: master, log: log, links: map[*carriage]struct{}{}}
}

// Listen opens the port.
func (g *Gate) Listen(ctx context.Context) error {
	var err error
	if g.l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", g.listen); err != nil {
		return fmt.Errorf("listen for replication: %w", err)
	}
	return nil
}

// Addr is where it listens, after Listen.
func (g *Gate) Addr() string { return g.l.Addr().String() }

// Open lets the replica through; Close ends what passes and refuses the next.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = true
}

// Close refuses connections, and ends those that pass.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open, g.permit = false, ""
	for c := range g.links {
		c.close()
	}
}

// Permit lets a full copy pass where the master's history is id, and no other;
// empty lets none pass.
func (g *Gate) Permit(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.permit = id
}

// Refused is what was refused last, since Forget; At is zero where nothing was.
func (g *Gate) Refused() Refusal {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refusal
}

// Forget forgets what was refused.
func (g *Gate) Forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refusal = Refusal{}
}

// passed notes that all is well again. A flush is not forgotten by that: the next
// connection starts before it.
func (g *Gate) passed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.refusal.Flush {
		g.refusal = Refusal{}
	}
}

func (g *Gate) refuse(r Refusal) {
	r.At = time.Now()
	g.mu.Lock()
	r.Flush = r.Flush || g.refusal.Flush
	again := g.refusal.Text == r.Text
	g.refusal = r
	g.mu.Unlock()
	if !again {
		g.log.Warn("replication gate refused", "reason", r.Text)
	}
}

// Run serves until ctx ends, and returns when every connection is closed.
func (g *Gate) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = g.l.Close() })
	defer stop()
	var err error
	for {
		var conn net.Conn
		if conn, err = g.l.Accept(); err != nil {
			var temporary net.Error
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) && errors.As(err, &temporary) && pause(ctx, 50*time.Millisecond) {
				continue
			}
			break
		}
		cctx, cancel := context.WithCancel(ctx)
		c := &carriage{client: conn, cancel: cancel}
		g.mu.Lock()
		if !g.open || len(g.links) >= maxGateLinks {
			// One replica, and perhaps its connection of a moment ago.
			g.mu.Unlock()
			c.close()
			continue
		}
		g.links[c] = struct{}{}
		g.mu.Unlock()
		g.wg.Go(func() { g.pass(cctx, c) })
	}
	g.Close()
	g.wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("replication gate: %w", errors.Join(err, g.l.Close()))
}

// pass carries one connection of the replica.
func (g *Gate) pass(ctx context.Context, c *carriage) {
	defer func() {
		c.close()
		g.mu.Lock()
		delete(g.links, c)
		g.mu.Unlock()
	}()
	dialing, cancel := context.WithTimeout(ctx, gateDial)
	server, err := g.master.dial(dialing)
	cancel()
	if err != nil {
		g.log.Debug("replication gate cannot dial", "to", g.master.Addr, "err", err)
		return
	}
	g.mu.Lock()
	c.server = server
	open := g.open
	g.mu.Unlock()
	if !open || ctx.Err() != nil {
		return
	}
	deadline := time.Now().Add(gateHandshake)
	if err := errors.Join(c.client.SetDeadline(deadline), server.SetDeadline(deadline)); err != nil {
		return
	}
	down, up := bufio.NewReaderSize(server, 64<<10), bufio.NewReaderSize(c.client, gateLineBytes)
	full, err := g.handshake(c.client, server, up, down)
	if err != nil {
		g.log.Debug("replication handshake ended", "err", err)
		return
	}
	if err := errors.Join(c.client.SetDeadline(time.Time{}), server.SetDeadline(time.Time{})); err != nil {
		return
	}
	var acks sync.WaitGroup
	acks.Go(func() {
		_, _ = io.Copy(server, up)
		_ = server.Close()
	})
	g.flow(c.client, down, full)
	_ = c.client.Close()
	_ = server.Close()
	acks.Wait()
}

// handshake passes commands and their answers until the answer to PSYNC, which it
// judges. full says that a whole copy comes next.
func (g *Gate) handshake(replica, master net.Conn, up, down *bufio.Reader) (full bool, err error) {
	for range gateHandshakeMost {
		raw, words, err := readCommand(up)
		if err != nil {
			return false, err
		}
		name := strings.ToUpper(words[0])
		switch name {
		case "PING", "AUTH", "REPLCONF", "PSYNC":
		default:
			g.refuse(Refusal{Text: fmt.Sprintf("%.20q is no word of a replica", name)})
			return false, errors.New("stranger at the gate")
		}
		if _, err := master.Write(raw); err != nil {
			return false, err
		}
		for {
			line, err := readLine(down)
			if err != nil {
				return false, err
			}
			if name == "PSYNC" && len(line) > 2 {
				var pass bool
				if full, pass = g.judge(string(bytes.TrimSpace(line))); !pass {
					return false, errors.New("not permitted")
				}
			}
			if _, err := replica.Write(line); err != nil {
				return false, err
			}
			if len(line) <= 2 {
				continue // an empty line keeps the replica waiting
			}
			if name == "PSYNC" && line[0] == '+' {
				return full, nil
			}
			break
		}
	}
	return false, errors.New("handshake without end")
}

// judge says whether the answer to PSYNC may pass.
func (g *Gate) judge(line string) (full, pass bool) {
	words := strings.Fields(line)
	switch {
	case words[0] == "+CONTINUE":
		g.passed()
		return false, true
	case words[0] == "+FULLRESYNC" && len(words) == 3:
		g.mu.Lock()
		permitted := g.permit != "" && g.permit == words[1]
		g.mu.Unlock()
		if !permitted {
			g.refuse(Refusal{Text: "a full copy of history " + words[1] + ", which would replace what this Redis holds", Full: true, FullID: words[1]})
			return true, false
		}
		g.passed()
		g.log.Info("full copy passes the replication gate", "history", words[1])
		return true, true
	case strings.HasPrefix(line, "-"):
		g.refuse(Refusal{Text: "the other Redis answered PSYNC: " + line[1:]})
		return false, true
	}
	g.refuse(Refusal{Text: fmt.Sprintf("answer to PSYNC: %.60q", line)})
	return false, false
}

// flow passes the stream until its end, or until a command that empties a database.
func (g *Gate) flow(replica io.Writer, down *bufio.Reader, full bool) {
	if full {
		if err := passCopy(replica, down); err != nil {
			g.log.Debug("full copy ended", "err", err)
			return
		}
	}
	guard := guard{w: replica}
	buf := make([]byte, 64<<10)
	for {
		n, err := down.Read(buf)
		if n > 0 {
			if werr := guard.write(buf[:n]); werr != nil {
				if errors.Is(werr, errFlush) {
					g.refuse(Refusal{Text: "the other Redis is being emptied (" + guard.name() + "): what this one holds stays", Flush: true})
				}
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// passCopy passes the data set of a full copy: "$<length>" and so many bytes, or
// "$EOF:<40 bytes>" and everything up to the same 40 bytes.
func passCopy(w io.Writer, r *bufio.Reader) error {
	var line []byte
	for len(bytes.TrimSpace(line)) == 0 {
		var err error
		if line, err = readLine(r); err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	text := string(bytes.TrimSpace(line))
	if mark, ok := strings.CutPrefix(text, "$EOF:"); ok {
		if len(mark) != 40 {
			return fmt.Errorf("mark of a copy: %.60q", text)
		}
		return passUntil(w, r, []byte(mark))
	}
	n, err := strconv.ParseInt(strings.TrimPrefix(text, "$"), 10, 64)
	if err != nil || n < 0 || text[0] != '$' {
		return fmt.Errorf("length of a copy: %.60q", text)
	}
	_, err = io.CopyN(w, r, n)
	return err
}

// passUntil passes everything up to and including mark, and not one byte more.
func passUntil(w io.Writer, r *bufio.Reader, mark []byte) error {
	for {
		have := max(r.Buffered(), len(mark))
		part, err := r.Peek(have)
		if len(part) < len(mark) {
			return err
		}
		n := len(part) - len(mark) + 1 // bytes that cannot be the start of a mark that is cut
		i := bytes.Index(part, mark)
		if i >= 0 {
			n = i + len(mark)
		}
		if _, err := w.Write(part[:n]); err != nil {
			return err
		}
		if _, err := r.Discard(n); err != nil {
			return err
		}
		if i >= 0 {
			return nil
		}
	}
}

// readCommand reads one command of the handshake: an array of short words.
func readCommand(r *bufio.Reader) (raw []byte, words []string, err error) {
	line, err := readLine(r)
	if err != nil {
		return nil, nil, err
	}
	raw = append(raw, line...)
	n, err := strconv.Atoi(string(bytes.TrimSpace(bytes.TrimPrefix(line, []byte("*")))))
	if err != nil || line[0] != '*' || n < 1 || n > 32 {
		return nil, nil, fmt.Errorf("command of a replica: %.40q", line)
	}
	for range n {
		if line, err = readLine(r); err != nil {
			return nil, nil, err
		}
		raw = append(raw, line...)
		size, err := strconv.Atoi(string(bytes.TrimSpace(bytes.TrimPrefix(line, []byte("$")))))
		if err != nil || line[0] != '$' || size < 0 || size > gateLineBytes {
			return nil, nil, fmt.Errorf("word of a replica: %.40q", line)
		}
		word := make([]byte, size+2)
		if _, err := io.ReadFull(r, word); err != nil {
			return nil, nil, err
		}
		raw, words = append(raw, word...), append(words, string(word[:size]))
	}
	return raw, words, nil
}

// readLine reads a line with its end; at most as much as the reader's buffer.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.Clone(line), nil
}
