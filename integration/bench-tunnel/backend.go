package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// banner is what the server says first, as SMTP and IMAP do.
const banner = "ready\r\n"

// backend is the server behind everything: after its banner it sends as many
// bytes as "D n" asks for, and echoes lines that begin with E. It takes
// connections with a PROXY header and without.
type backend struct {
	l       net.Listener
	running sync.WaitGroup
}

func startBackend() (*backend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // of this machine
	if err != nil {
		return nil, err
	}
	b := &backend{l: l}
	b.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.serve(c)
		}
	})
	return b, nil
}

func (b *backend) addr() string { return b.l.Addr().String() }

func (b *backend) close() { _ = b.l.Close(); b.running.Wait() }

// serve must greet before it knows whether a header comes, so it skips one later.
func (b *backend) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, banner); err != nil {
		return
	}
	r := bufio.NewReader(c)
	if first, err := r.Peek(1); err == nil && first[0] == proxyproto.SIGV2[0] {
		if _, err := proxyproto.Read(r); err != nil {
			return
		}
	}
	junk := make([]byte, 64<<10)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if rest, ok := strings.CutPrefix(line, "D "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			if err != nil {
				return
			}
			for n > 0 {
				k := min(n, int64(len(junk)))
				if _, err := c.Write(junk[:k]); err != nil {
					return
				}
				n -= k
			}
			continue
		}
		if _, err := io.WriteString(c, line); err != nil {
			return
		}
	}
}

// connect is a client up to the banner.
func connect(addr string) (net.Conn, *bufio.Reader, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second) //nolint:noctx // it has a limit
	if err != nil {
		return nil, nil, err
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	r := bufio.NewReaderSize(c, 4<<10)
	line, err := r.ReadString('\n')
	if err == nil && line != banner {
		err = fmt.Errorf("banner %q", line)
	}
	if err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	return c, r, nil
}
