package wire

import (
	"io"
	"net"
	"sync"
)

// Buffer sizes in bytes: a waiting connection holds the small one only; a message
// that fills it gets the large one until its end.
const (
	smallBuffer = 8 << 10
	largeBuffer = 64 << 10
)

// buffers lends large buffers to the connections of one server.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, largeBuffer)
	return &p
}

// input buffers what a connection sends. Unread bytes are buf[r:w].
type input struct {
	conn  net.Conn
	buf   []byte
	r, w  int
	fresh int // bytes the last read brought
	small []byte
	lent  *[]byte
	from  *buffers
}

func newInput(conn net.Conn, size int, from *buffers) *input {
	b := make([]byte, max(size, smallBuffer))
	return &input{conn: conn, buf: b, small: b, from: from}
}

func (in *input) unread() []byte { return in.buf[in.r:in.w] }

func (in *input) consume(n int) { in.r += n }

// read gets more bytes from the connection with a single read. The slices that
// unread returned before are invalid afterwards.
func (in *input) read() (int, error) {
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	if in.w == len(in.buf) {
		copy(in.buf, in.buf[in.r:in.w])
		in.w -= in.r
		in.r = 0
	}
	n, err := in.conn.Read(in.buf[in.w:])
	in.w += n
	in.fresh = n
	if n > 0 {
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

// grow borrows the large buffer, once the small one has been filled.
func (in *input) grow() {
	if in.lent != nil || in.w < len(in.small) {
		return
	}
	in.lent = in.from.get()
	in.w = copy(*in.lent, in.unread())
	in.r = 0
	in.buf = *in.lent
}

// release gives the large buffer back, as soon as what is unread fits the small one.
func (in *input) release() {
	if in.lent == nil || in.w-in.r > len(in.small) {
		return
	}
	in.w = copy(in.small, in.unread())
	in.r = 0
	in.buf = in.small
	in.from.pool.Put(in.lent)
	in.lent = nil
}
