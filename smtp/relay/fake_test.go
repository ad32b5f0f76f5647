package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/smtp"
)

// fakeQueue is a queue in memory. What is deferred waits until it is expedited.
type fakeQueue struct {
	mu        sync.Mutex
	due       []*fakeMessage
	waiting   []*fakeMessage
	lent      int
	change    chan struct{} // closed and renewed at every change
	expedited map[string]int
	routes    []string
	ended     map[string][]smtp.Result // final results, by id
	attempts  map[string]int           // Done with a result, by id
	edit      func(*smtp.Envelope)     // what messages added from now on are like
}

type fakeMessage struct {
	q       *fakeQueue
	route   string
	env     *smtp.Envelope
	pending []int
	body    func() io.Reader
	done    bool
}

var _ Queue = (*fakeQueue)(nil)

func newFakeQueue() *fakeQueue {
	return &fakeQueue{
		change: make(chan struct{}), expedited: map[string]int{}, routes: []string{""},
		ended: map[string][]smtp.Result{}, attempts: map[string]int{},
	}
}

func (q *fakeQueue) changedLocked() {
	close(q.change)
	q.change = make(chan struct{})
}

// add queues a message with a body.
func (q *fakeQueue) add(id, body string, to ...string) {
	q.addFor("", id, int64(len(body)), func() io.Reader { return strings.NewReader(body) }, to...)
}

func (q *fakeQueue) addFor(route, id string, size int64, body func() io.Reader, to ...string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := &fakeMessage{q: q, route: route, body: body, env: &smtp.Envelope{
		ID: id, Received: time.Now(), Sender: id + "@src.test", SizeBytes: size,
		Client: smtp.Client{Addr: netip.MustParseAddrPort("192.0.2.7:4000"), HELO: "client.test", Protocol: "ESMTP"},
	}}
	for i, a := range to {
		m.env.Recipients = append(m.env.Recipients, smtp.Recipient{Address: a})
		m.pending = append(m.pending, i)
	}
	if q.edit != nil {
		q.edit(m.env)
	}
	if !slices.Contains(q.routes, route) {
		q.routes = append(q.routes, route)
	}
	q.due = append(q.due, m)
	q.changedLocked()
}

func (q *fakeQueue) Take(ctx context.Context, route string, limit int) ([]smtp.Delivery, error) {
	for {
		q.mu.Lock()
		var out []smtp.Delivery
		q.due = slices.DeleteFunc(q.due, func(m *fakeMessage) bool {
			if m.route != route || len(out) == limit {
				return false
			}
			m.done = false
			out = append(out, m)
			return true
		})
		q.lent += len(out)
		change := q.change
		q.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (q *fakeQueue) Expedite(route string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.expedited[route]++
	q.waiting = slices.DeleteFunc(q.waiting, func(m *fakeMessage) bool {
		if m.route == route {
			q.due = append(q.due, m)
		}
		return m.route == route
	})
	q.changedLocked()
}

func (q *fakeQueue) Routes() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.routes)
}

func (q *fakeQueue) RoutesChanged() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.change
}

func (q *fakeQueue) setRoutes(routes ...string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.routes = routes
	q.changedLocked()
}

// left counts what is not ended.
func (q *fakeQueue) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.due) + len(q.waiting) + q.lent
}

// locked reads a number.
func (q *fakeQueue) locked(f func() int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return f()
}

func (q *fakeQueue) expeditions() int { return q.locked(func() int { return q.expedited[""] }) }
func (q *fakeQueue) tried() int       { return q.locked(func() int { return len(q.attempts) }) }
func (q *fakeQueue) answered() int    { return q.locked(func() int { return len(q.ended) }) }
func (q *fakeQueue) held() int        { return q.locked(func() int { return len(q.waiting) }) }

func (m *fakeMessage) Envelope() *smtp.Envelope { return m.env }
func (m *fakeMessage) Pending() []int           { return slices.Clone(m.pending) }
func (m *fakeMessage) Open(context.Context) (io.ReadCloser, int64, error) {
	return io.NopCloser(m.body()), m.env.SizeBytes, nil
}

func (m *fakeMessage) Done(results []smtp.Result) {
	q := m.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if m.done {
		panic("Done called twice for " + m.env.ID)
	}
	m.done = true
	q.lent--
	deferred := false
	for _, r := range results {
		if r.Outcome == smtp.Deferred {
			deferred = true
			continue
		}
		q.ended[m.env.ID] = append(q.ended[m.env.ID], r)
		m.pending = slices.DeleteFunc(m.pending, func(i int) bool { return i == r.Recipient })
	}
	if len(results) > 0 {
		q.attempts[m.env.ID]++
	}
	switch {
	case len(m.pending) == 0:
	case deferred:
		q.waiting = append(q.waiting, m)
	default:
		q.due = append(q.due, m)
	}
	q.changedLocked()
}

// fakeHop is a server whose behaviour can be changed while it runs.
type fakeHop struct {
	mu       sync.Mutex
	conns    map[net.Conn]bool
	up       bool
	made     int // connections
	ext      []string
	lmtp     bool
	banner   string
	tls      *tls.Config
	mail     func(line string) string
	rcpt     func(addr string) string
	final    func(addr string) string // per recipient with LMTP
	got      []fakeReceived
	keep     bool // keep bodies
	arrival  []time.Time
	busyNow  int
	busiest  int // transactions at the same time
	xclients []string
	maxBad   int // refused recipients a connection may have; 0 is any number
}

type fakeReceived struct {
	from string
	to   []string
	body string
	tls  bool
}

func newFakeHop(ext ...string) *fakeHop {
	return &fakeHop{conns: map[net.Conn]bool{}, up: true, ext: ext, banner: "220 hop.test ESMTP", keep: true}
}

var errRefused = errors.New("connection refused")

// dial is for Deps.Dial: a pipe to the hop.
func (h *fakeHop) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return nil, errRefused
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	h.conns[far] = true
	h.made++
	go h.serve(far)
	return near, nil
}

// listen serves on a real socket.
func (h *fakeHop) listen(tb testing.TB, network, addr string) net.Listener {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), network, addr)
	if err != nil {
		tb.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns[c] = true
			h.made++
			h.mu.Unlock()
			go h.serve(c)
		}
	}()
	tb.Cleanup(func() {
		_ = l.Close()
		h.set(func() { h.cutLocked() })
	})
	return l
}

func (h *fakeHop) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *fakeHop) cutLocked() {
	for c := range h.conns {
		_ = c.Close()
	}
	clear(h.conns)
}

// down closes everything and refuses connections.
func (h *fakeHop) down() { h.set(func() { h.up = false; h.cutLocked() }) }

func (h *fakeHop) open() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

func (h *fakeHop) connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.made
}

func (h *fakeHop) received() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.got)
}

func (h *fakeHop) serve(c net.Conn) {
	raw := c
	defer func() {
		_ = c.Close()
		h.set(func() { delete(h.conns, raw) })
	}()
	br, bw := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)
	s := &fakeSession{h: h, br: br, bw: bw}
	h.set(func() { s.say(h.banner) })
	for {
		if br.Buffered() == 0 {
			if bw.Flush() != nil {
				return
			}
		}
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "STARTTLS" {
			s.say("220 go")
			_ = bw.Flush()
			t := tls.Server(c, h.tls)
			c = t
			s.br, s.bw, s.tls = bufio.NewReader(t), bufio.NewWriter(t), true
			br, bw = s.br, s.bw
			continue
		}
		if !s.command(line) {
			_ = bw.Flush()
			return
		}
	}
}

type fakeSession struct {
	h    *fakeHop
	br   *bufio.Reader
	bw   *bufio.Writer
	tls  bool
	from string
	open bool
	to   []string
	body strings.Builder
	bad  int // refused recipients
}

func (s *fakeSession) say(line string) bool {
	_, _ = s.bw.WriteString(line + "\r\n")
	return !strings.HasPrefix(line, "421") && !strings.HasPrefix(line, "554 banner")
}

func (s *fakeSession) reset() {
	if s.open {
		s.h.set(func() { s.h.busyNow-- })
	}
	s.open, s.from, s.to = false, "", nil
	s.body.Reset()
}

func (s *fakeSession) command(line string) bool {
	h := s.h
	verb, arg, _ := strings.Cut(line, " ")
	switch verb {
	case "EHLO", "LHLO":
		var ext []string
		h.set(func() { ext = slices.Clone(h.ext) })
		if h.tls != nil && !s.tls {
			ext = append(ext, "STARTTLS")
		}
		s.say("250-hop.test")
		for _, e := range ext {
			s.say("250-" + e)
		}
		return s.say("250 HELP")
	case "XCLIENT":
		h.set(func() { h.xclients = append(h.xclients, arg) })
		return s.say("220 again")
	case "QUIT":
		s.say("221 bye")
		return false
	case "RSET":
		s.reset()
		return s.say("250 2.0.0 reset")
	case "MAIL":
		if s.open {
			return s.say("503 5.5.1 nested")
		}
		var f func(string) string
		h.set(func() { f = h.mail })
		if f != nil {
			if rep := f(arg); rep != "" {
				return s.say(rep)
			}
		}
		s.open, s.from = true, between(arg)
		h.set(func() { h.busyNow++; h.busiest = max(h.busiest, h.busyNow) })
		return s.say("250 2.1.0 ok")
	case "RCPT":
		addr := between(arg)
		var f func(string) string
		h.set(func() { f = h.rcpt })
		if f != nil {
			if rep := f(addr); rep != "" {
				if s.bad++; h.maxBad > 0 && s.bad > h.maxBad {
					rep = "421 4.7.0 too many errors"
				}
				return s.say(rep)
			}
		}
		if !s.open {
			return s.say("503 5.5.1 MAIL first")
		}
		s.to = append(s.to, addr)
		return s.say("250 2.1.5 ok")
	case "BDAT":
		f := strings.Fields(arg)
		n, _ := strconv.Atoi(f[0])
		if _, err := io.CopyN(s.keep(), s.br, int64(n)); err != nil {
			return false
		}
		if len(s.to) == 0 {
			return s.say("554 5.5.1 no valid recipients")
		}
		if len(f) == 1 {
			return s.say("250 2.0.0 more")
		}
		return s.finish()
	case "DATA":
		if len(s.to) == 0 {
			return s.say("554 5.5.1 no valid recipients")
		}
		s.say("354 go")
		_ = s.bw.Flush()
		for {
			l, err := s.br.ReadString('\n')
			if err != nil {
				return false
			}
			if l == ".\r\n" {
				return s.finish()
			}
			_, _ = io.WriteString(s.keep(), strings.TrimPrefix(l, "."))
		}
	}
	return s.say("500 5.5.2 what?")
}

func (s *fakeSession) keep() io.Writer {
	if s.h.keep {
		return &s.body
	}
	return io.Discard
}

func (s *fakeSession) finish() bool {
	h := s.h
	taken := fakeReceived{from: s.from, body: s.body.String(), tls: s.tls}
	var reps []string
	var f func(string) string
	h.set(func() { f = h.final })
	ask := []string{""}
	if h.lmtp {
		ask = s.to
	}
	for _, a := range ask {
		rep := ""
		if f != nil {
			rep = f(a)
		}
		if rep == "" {
			rep = "250 2.0.0 queued"
			if h.lmtp {
				taken.to = append(taken.to, a)
			} else {
				taken.to = s.to
			}
		}
		reps = append(reps, rep)
	}
	if len(taken.to) > 0 {
		h.set(func() {
			h.got = append(h.got, taken)
			h.arrival = append(h.arrival, time.Now())
		})
	}
	s.reset()
	for _, rep := range reps {
		if rep == "close" || !s.say(rep) {
			return false
		}
	}
	return true
}

func between(arg string) string {
	_, rest, _ := strings.Cut(arg, "<")
	addr, _, _ := strings.Cut(rest, ">")
	return addr
}

// fakeAlarms remembers what is raised.
type fakeAlarms struct {
	mu sync.Mutex
	on map[string]string
}

func (a *fakeAlarms) Raise(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.on == nil {
		a.on = map[string]string{}
	}
	a.on[key] = text
}

func (a *fakeAlarms) Clear(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.on, key)
}

func (a *fakeAlarms) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprint(a.on)
}
