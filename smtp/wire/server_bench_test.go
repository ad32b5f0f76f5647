package wire

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// benchBody is a message of 64 MiB in lines of 78 bytes, as mail has them.
const benchLine = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod temp\r\n"

var benchBlock = []byte(strings.Repeat(benchLine, (256<<10)/len(benchLine)))

const benchBlocks = 256

// counter consumes a message as a file would, block by block.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// pour sends the body n times from another goroutine and returns how long it took
// take to read all of it.
func pour(tb testing.TB, head, tail []byte, take func(net.Conn)) time.Duration {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback, in a test
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	sent := make(chan error, 1)
	go func() {
		nc, err := net.Dial("tcp", l.Addr().String()) //nolint:noctx // loopback, in a test
		if err != nil {
			sent <- err
			return
		}
		defer func() { _ = nc.Close() }()
		_, err = nc.Write(head)
		for range benchBlocks {
			if err == nil {
				_, err = nc.Write(benchBlock)
			}
		}
		if err == nil {
			_, err = nc.Write(tail)
		}
		_, _ = io.Copy(io.Discard, nc)
		sent <- err
	}()
	nc, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	start := time.Now()
	take(nc)
	d := time.Since(start)
	_ = nc.Close()
	if err := <-sent; err != nil {
		tb.Fatal(err)
	}
	return d
}

func pourCopy(tb testing.TB) time.Duration {
	tb.Helper()
	return pour(tb, nil, nil, func(nc net.Conn) {
		// The hiding of ReadFrom and WriteTo keeps splice out: both sides read into memory.
		if _, err := io.CopyN(struct{ io.Writer }{&counter{}}, struct{ io.Reader }{nc}, benchBlocks*int64(len(benchBlock))); err != nil {
			tb.Fatal(err)
		}
	})
}

func pourServer(tb testing.TB, chunked bool) time.Duration {
	tb.Helper()
	cfg := DefaultServerConfig()
	cfg.MaxMessageBytes = 1 << 30
	var got counter
	backend := &sink{data: func(r io.Reader) error {
		_, err := io.Copy(struct{ io.Writer }{&got}, r)
		return err
	}}
	s, err := NewServer(cfg, "mx.example.com", nil, backend, nil)
	if err != nil {
		tb.Fatal(err)
	}
	head := "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
	tail := ".\r\nQUIT\r\n"
	if chunked {
		head = strings.Replace(head, "DATA", "BDAT "+strconv.Itoa(benchBlocks*len(benchBlock))+" LAST", 1)
		tail = "QUIT\r\n"
	}
	d := pour(tb, []byte(head), []byte(tail), func(nc net.Conn) {
		c := newConn(tb.Context(), s, nc)
		c.in = newInput(nc, smallBuffer, &s.buffers)
		if !c.connect() { // without the watch for early talkers
			tb.Error("not connected")
		}
		for !c.closing {
			cmd, ok := c.readCommand(time.Time{})
			if !ok {
				break
			}
			c.do(cmd)
		}
		c.close()
	})
	if want := benchBlocks * int64(len(benchBlock)); got.n != want {
		tb.Fatalf("read %d bytes, want %d", got.n, want)
	}
	return d
}

func BenchmarkCopySocket(b *testing.B) {
	b.SetBytes(benchBlocks * int64(len(benchBlock)))
	for b.Loop() {
		pourCopy(b)
	}
}

func BenchmarkReadData(b *testing.B) {
	for _, chunked := range []bool{false, true} {
		name := "DATA"
		if chunked {
			name = "BDAT"
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchBlocks * int64(len(benchBlock)))
			var read, plain time.Duration
			for b.Loop() {
				read += pourServer(b, chunked)
				b.StopTimer()
				plain += pourCopy(b)
				b.StartTimer()
			}
			b.ReportMetric(float64(plain)/float64(read), "of-copy")
		})
	}
}

// TestReadingABodyIsHalfAsFastAsCopyingIt takes the best of several rounds, so that
// a busy machine does not decide it.
func TestReadingABodyIsHalfAsFastAsCopyingIt(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("a measurement")
	}
	for _, chunked := range []bool{false, true} {
		best := 0.0
		for range 20 {
			plain, read := pourCopy(t), pourServer(t, chunked)
			best = max(best, float64(plain)/float64(read))
			if best >= 0.5 {
				break
			}
		}
		t.Logf("chunked %v: %.2f of the speed of a copy", chunked, best)
		if best < 0.5 {
			t.Errorf("chunked %v: reading a message runs at %.2f of the speed of copying it", chunked, best)
		}
	}
}

// BenchmarkScan is the bare work of looking at bytes, without a socket.
func BenchmarkScan(b *testing.B) {
	b.Run("DATA", func(b *testing.B) {
		b.SetBytes(int64(len(benchBlock)))
		for b.Loop() {
			var d dotScanner
			for rest := benchBlock; len(rest) > 0; {
				_, used, _, clean := d.next(rest[:min(len(rest), largeBuffer)])
				if !clean {
					b.Fatal("not clean")
				}
				rest = rest[used:]
			}
		}
	})
	b.Run("BDAT", func(b *testing.B) {
		b.SetBytes(int64(len(benchBlock)))
		for b.Loop() {
			var c textCheck
			for rest := benchBlock; len(rest) > 0; {
				n := min(len(rest), largeBuffer)
				if !c.clean(rest[:n]) {
					b.Fatal("not clean")
				}
				rest = rest[n:]
			}
		}
	})
}

// TestMemoryOfManyConnections holds 200 connections, each of which has sent a
// message of 4 KiB, to a bound on what the whole process (clients included) keeps.
func TestMemoryOfManyConnections(t *testing.T) {
	_, addr := serve(t, &sink{data: func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }}, nil)
	before := inUse()
	body := string(bytes.Repeat([]byte(benchLine), 4096/len(benchLine)))
	clients := make([]*talker, 200)
	for i := range clients {
		clients[i] = dial(t, addr)
		clients[i].ready()
		clients[i].data(body + ".\r\n")
		clients[i].expect("250 ")
	}
	grown := inUse() - before
	t.Logf("%d connections: %d KiB", len(clients), grown>>10)
	if grown > 12<<20 {
		t.Errorf("200 idle connections keep %d KiB", grown>>10)
	}
	runtime.KeepAlive(clients)
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
