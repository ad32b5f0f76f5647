package admin

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// streamBuffer is how much of a stream is gathered before it is written.
const streamBuffer = 64 << 10

// stream writes a long answer: buffered, every write with its own deadline, and
// begun (status line and all) only with the first byte, so that an error before
// it still has its status.
type stream struct {
	buf  *bufio.Writer
	ctl  *http.ResponseController
	json *json.Encoder
}

// newStream prepares w for an answer of that content type.
func newStream(w http.ResponseWriter, contentType string) *stream {
	w.Header().Set("Content-Type", contentType)
	s := &stream{ctl: http.NewResponseController(w)}
	s.buf = bufio.NewWriterSize(deadlineWriter{w, s.ctl}, streamBuffer)
	s.json = json.NewEncoder(s.buf)
	s.json.SetEscapeHTML(false)
	return s
}

// Write implements io.Writer, buffered.
func (s *stream) Write(p []byte) (int, error) { return s.buf.Write(p) }

// line appends v as one line of JSON, buffered.
func (s *stream) line(v any) error { return s.json.Encode(v) }

// flush sends what is buffered to the caller now.
func (s *stream) flush() error {
	if err := s.buf.Flush(); err != nil {
		return err
	}
	return s.ctl.Flush()
}

// fail ends the stream with err as its last line, where the caller still listens.
func (s *stream) fail(wrap func(*Error) any, err error) {
	if s.line(wrap(asError(err))) == nil {
		_ = s.flush()
	}
}

// deadlineWriter gives every write its own time.
type deadlineWriter struct {
	w   io.Writer
	ctl *http.ResponseController
}

// Write implements io.Writer.
func (d deadlineWriter) Write(p []byte) (int, error) {
	if err := d.ctl.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	return d.w.Write(p)
}

// deadlineReader gives every read of a request's body its own time.
type deadlineReader struct {
	r   io.Reader
	ctl *http.ResponseController
}

// Read implements io.Reader.
func (d deadlineReader) Read(p []byte) (int, error) {
	if err := d.ctl.SetReadDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	return d.r.Read(p)
}

// writeJSON answers with one object.
func writeJSON(w http.ResponseWriter, v any) error {
	s := newStream(w, "application/json")
	if err := s.line(v); err != nil {
		return err
	}
	return s.flush()
}

// abort handles an error in the middle of a raw stream, which has no line to say
// it in. Where nothing was sent yet err becomes the answer; else the connection is
// cut, so that the caller cannot take the part for the whole.
func abort(w http.ResponseWriter, err error) error {
	rec, ok := w.(*recorder)
	if !ok || rec.status == 0 {
		return err
	}
	conn, _, hijackErr := http.NewResponseController(w).Hijack()
	if hijackErr != nil {
		return errors.Join(err, hijackErr)
	}
	return errors.Join(err, conn.Close())
}
