package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// primary is the stand-in for the primary mail server: it accepts everything for
// its domain and keeps it in memory. It can be killed and started again; what it
// had received stays, as on a disk.
type primary struct {
	addr string // fixed after the first start, so that it comes back where it was

	mu    sync.Mutex
	boxes [][]byte

	server *gosmtp.Server
	done   chan struct{}
}

// start listens and serves.
func (p *primary) start(ctx context.Context) error {
	addr := p.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("start primary: %w", err)
	}
	p.addr = l.Addr().String()
	p.server = gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) {
		return &primarySession{p: p}, nil
	}))
	p.server.Domain = "mx1.demo.example"
	p.server.MaxMessageBytes = 64 << 20
	p.server.MaxLineLength = 1 << 20
	p.server.ReadTimeout, p.server.WriteTimeout = time.Minute, time.Minute
	p.server.ErrorLog = quiet{}
	p.done = make(chan struct{})
	go func(s *gosmtp.Server, done chan struct{}) {
		defer close(done)
		_ = s.Serve(l) // ends when kill closes it
	}(p.server, p.done)
	return nil
}

// kill ends it at once: listener and connections.
func (p *primary) kill() {
	if p.server == nil {
		return
	}
	_ = p.server.Close() // it is meant to die
	<-p.done
	p.server = nil
}

// received returns every message it holds.
func (p *primary) received() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([][]byte(nil), p.boxes...)
}

// copies counts how often text arrived, whole and unaltered, behind the trace
// headers that the way added.
func (p *primary) copies(text []byte) int {
	n := 0
	for _, got := range p.received() {
		if bytes.HasSuffix(got, text) {
			n++
		}
	}
	return n
}

// primarySession is one connection to the primary.
type primarySession struct{ p *primary }

// Reset implements gosmtp.Session.
func (s *primarySession) Reset() {}

// Logout implements gosmtp.Session.
func (s *primarySession) Logout() error { return nil }

// Mail implements gosmtp.Session.
func (s *primarySession) Mail(string, *gosmtp.MailOptions) error { return nil }

// Rcpt implements gosmtp.Session.
func (s *primarySession) Rcpt(string, *gosmtp.RcptOptions) error { return nil }

// Data implements gosmtp.Session.
func (s *primarySession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.boxes = append(s.p.boxes, text)
	return nil
}

// quiet swallows go-smtp's log: broken connections are part of the play.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

// errRefused is a permanent answer from an MX host.
var errRefused = errors.New("refused")
