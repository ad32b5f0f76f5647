package rspamd

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"understudy/spamsync/engine/enginetest"
)

// slowDisk is a message whose bytes come late.
type slowDisk struct {
	*bytes.Reader
	over, late atomic.Bool
}

func (s *slowDisk) Read(p []byte) (int, error) {
	timer := time.NewTimer(300 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
	if s.over.Load() {
		s.late.Store(true)
	}
	return s.Reader.Read(p)
}

// The transport reads the message in a goroutine of its own. When Check returns,
// that one is done with it: the caller frees what is behind.
func TestMessageIsLeftAlone(t *testing.T) {
	t.Parallel()
	addr := enginetest.Listen(t, func(c net.Conn) { // answers before it has read the message
		// Not before the request's first byte: an answer on an idle connection is
		// nobody's, and the transport says so.
		_, _ = c.Read(make([]byte, 1))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"action\":\"no action\"}")
		_, _ = io.Copy(io.Discard, c)
	})
	filter := newFilter(t, Options{URLs: []string{"http://" + addr}})
	body := &slowDisk{Reader: bytes.NewReader([]byte(enginetest.Message(1, "hello")))}
	if _, err := filter.Check(t.Context(), enginetest.Envelope(), body); err != nil {
		t.Error(err)
	}
	body.over.Store(true)
	timer := time.NewTimer(400 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
	if body.late.Load() {
		t.Error("the message was read after Check had returned")
	}
}
