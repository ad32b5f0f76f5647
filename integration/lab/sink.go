package lab

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// SinkConfig says how a next hop behaves.
type SinkConfig struct {
	// Addr is where it listens; empty picks a free port.
	Addr string
	// Chunking offers CHUNKING (RFC 3030).
	Chunking bool
	// Keep remembers the bodies' sums by message number; without it messages are
	// only counted, at the speed of reading.
	Keep bool
}

// Sink is a next hop that takes mail and keeps at most its sum. Its methods may
// be called concurrently.
type Sink struct {
	Addr string

	config   SinkConfig
	listener net.Listener
	conns    connSet
	done     sync.WaitGroup
	count    atomic.Int64
	peak     atomic.Int64
	open     atomic.Int64

	mu     sync.Mutex
	answer Answer
	bodies map[int][]Sum
	first  time.Time
	// reached is closed and replaced whenever a message arrives; changed whenever
	// the answer is set.
	reached, changed chan struct{}
}

// Answer decides what a sink says at a stage ("connect", "MAIL", "RCPT",
// "message") of a session about an argument. An empty reply is the good one;
// "hang" says nothing until SetAnswer is called or the client goes away, as a
// machine does that is frozen for a while; then the question is asked again.
type Answer func(stage, argument string) string

// StartSink starts a next hop; it stops with the story.
func StartSink(h Host, config SinkConfig) *Sink {
	h.Helper()
	addr := config.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	s := &Sink{config: config, listener: Listen(h, addr), bodies: map[int][]Sum{}, reached: make(chan struct{}), changed: make(chan struct{})}
	s.Addr = s.listener.Addr().String()
	s.conns.open = map[net.Conn]struct{}{}
	s.done.Go(s.accept)
	h.Cleanup(s.Close)
	return s
}

// Close stops listening and cuts all connections. It may be called again.
func (s *Sink) Close() {
	_ = s.listener.Close()
	s.conns.closeAll()
	s.SetAnswer(nil) // whoever hangs finds the connection closed
	s.done.Wait()
}

// SetAnswer changes what the sink says from now on; nil is all good.
func (s *Sink) SetAnswer(a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = a
	close(s.changed)
	s.changed = make(chan struct{})
}

// Count is the number of messages taken.
func (s *Sink) Count() int { return int(s.count.Load()) }

// Peak is the largest number of connections that were open at once.
func (s *Sink) Peak() int { return int(s.peak.Load()) }

// First is when the first message was taken; zero before that.
func (s *Sink) First() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first
}

// Bodies returns the sums of every message by number, once for each time it came.
func (s *Sink) Bodies() map[int][]Sum {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[int][]Sum, len(s.bodies))
	for id, sums := range s.bodies {
		all[id] = append([]Sum(nil), sums...)
	}
	return all
}

// WaitCount waits until n messages were taken.
func (s *Sink) WaitCount(h Host, n int, limit time.Duration) {
	h.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		s.mu.Lock()
		reached := s.reached
		s.mu.Unlock()
		if s.Count() >= n {
			return
		}
		select {
		case <-reached:
		case <-h.Context().Done():
			h.Fatalf("the story ended while waiting for mail")
		case <-timer.C:
			h.Fatalf("%d of %d messages reached the next hop within %v", s.Count(), n, limit)
		}
	}
}

func (s *Sink) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		if !s.conns.add(conn) {
			_ = conn.Close()
			return
		}
		s.done.Go(func() {
			defer s.conns.remove(conn)
			n := s.open.Add(1)
			defer s.open.Add(-1)
			for p := s.peak.Load(); n > p && !s.peak.CompareAndSwap(p, n); p = s.peak.Load() {
			}
			session := &sinkSession{sink: s, in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriter(conn)}
			session.run()
		})
	}
}

func (s *Sink) took(text []byte) {
	if s.config.Keep {
		id, ok := identify(text)
		if !ok {
			id = -1
		}
		sum := sum(body(text))
		s.mu.Lock()
		s.bodies[id] = append(s.bodies[id], sum)
		s.mu.Unlock()
	}
	s.count.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first.IsZero() {
		s.first = time.Now()
	}
	close(s.reached)
	s.reached = make(chan struct{})
}

// errQuit ends a session from our side.
var errQuit = errors.New("session over")

// sinkSession is one connection to a sink.
type sinkSession struct {
	sink *Sink
	in   *bufio.Reader
	out  *bufio.Writer
	text bytes.Buffer
	// got is the number of recipients of the open transaction.
	got int
}

func (c *sinkSession) run() {
	err := c.say("connect", "", "220 sink.lab.test ESMTP")
	for err == nil {
		var line []byte
		line, err = c.in.ReadSlice('\n')
		if err != nil {
			return
		}
		verb, argument, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
		err = c.command(strings.ToUpper(verb), argument)
	}
	_ = c.out.Flush()
}

func (c *sinkSession) command(verb, argument string) error {
	switch verb {
	case "EHLO":
		chunking := ""
		if c.sink.config.Chunking {
			chunking = "250-CHUNKING\r\n"
		}
		return c.reply("250-sink.lab.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE 0\r\n250-ENHANCEDSTATUSCODES\r\n" + chunking + "250 DSN")
	case "HELO":
		return c.reply("250 sink.lab.test")
	case "MAIL":
		c.got = 0
		return c.say("MAIL", argument, "250 2.1.0 ok")
	case "RCPT":
		c.got++
		return c.say("RCPT", argument, "250 2.1.5 ok")
	case "RSET":
		c.got = 0
		c.text.Reset()
		return c.reply("250 2.0.0 ok")
	case "NOOP":
		return c.reply("250 2.0.0 ok")
	case "DATA":
		return c.data()
	case "BDAT":
		return c.chunk(argument)
	case "QUIT":
		_ = c.reply("221 2.0.0 bye")
		return errQuit
	default:
		return c.reply("500 5.5.1 unknown command")
	}
}

func (c *sinkSession) data() error {
	if c.got == 0 {
		return c.reply("503 5.5.1 no recipient")
	}
	if err := c.reply("354 go on"); err != nil {
		return err
	}
	c.text.Reset()
	start := true
	for {
		piece, err := c.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		whole := err == nil
		if start && len(piece) > 0 && piece[0] == '.' {
			if len(piece) == 3 && piece[1] == '\r' {
				return c.end()
			}
			piece = piece[1:]
		}
		start = whole
		if c.sink.config.Keep {
			c.text.Write(piece)
		}
	}
}

func (c *sinkSession) chunk(argument string) error {
	count, last, _ := strings.Cut(argument, " ")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || !c.sink.config.Chunking {
		_ = c.reply("501 5.5.4 bad chunk")
		return errQuit
	}
	into := io.Discard
	if c.sink.config.Keep {
		into = &c.text
	}
	if _, err := io.CopyN(into, c.in, n); err != nil {
		return err
	}
	if c.got == 0 {
		c.text.Reset()
		return c.reply("503 5.5.1 no recipient")
	}
	if !strings.EqualFold(last, "LAST") {
		return c.reply("250 2.0.0 chunk")
	}
	return c.end()
}

func (c *sinkSession) end() error {
	c.got = 0
	defer c.text.Reset()
	if reply := c.ask("message", ""); reply != "" {
		return c.speak(reply)
	}
	c.sink.took(c.text.Bytes())
	return c.reply("250 2.0.0 taken")
}

func (c *sinkSession) ask(stage, argument string) string {
	for {
		c.sink.mu.Lock()
		a, changed := c.sink.answer, c.sink.changed
		c.sink.mu.Unlock()
		if a == nil {
			return ""
		}
		reply := a(stage, argument)
		if reply != "hang" {
			return reply
		}
		<-changed
	}
}

// say answers as the sink was told to, else with the good reply.
func (c *sinkSession) say(stage, argument, good string) error {
	if reply := c.ask(stage, argument); reply != "" {
		if stage == "RCPT" {
			c.got--
		}
		return c.speak(reply)
	}
	return c.reply(good)
}

// speak gives the reply somebody decided on; 421 ends the session.
func (c *sinkSession) speak(reply string) error {
	if err := c.reply(reply); err != nil {
		return err
	}
	if strings.HasPrefix(reply, "421") {
		return errQuit
	}
	return nil
}

// reply writes a reply; it leaves at once unless more commands have already come.
func (c *sinkSession) reply(text string) error {
	if _, err := fmt.Fprintf(c.out, "%s\r\n", text); err != nil {
		return err
	}
	if c.in.Buffered() > 0 {
		return nil
	}
	return c.out.Flush()
}

// connSet knows the open connections of a listener, so that it can cut them.
type connSet struct {
	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

// add registers a connection; false after closeAll.
func (s *connSet) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open[c] = struct{}{}
	return true
}

func (s *connSet) remove(c net.Conn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (s *connSet) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
}
