package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"understudy/smtp/queue"
)

// readList decodes what WriteList has written, a message a line. Lines in the
// form that appendSummary gives them are read by hand, several times faster than
// encoding/json could; any other goes to encoding/json.
func readList(r io.Reader, fn func(queue.Summary) error) error {
	br := bufio.NewReaderSize(r, streamBuffer)
	long := []byte(nil)
	for n := 0; ; n++ {
		line, err := br.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) && len(long) < maxLineBytes {
			long = append(long, line...)
			line, err = br.ReadSlice('\n')
		}
		if len(long) > 0 {
			line = append(long, line...)
			long = long[:0]
		}
		line = bytes.TrimSpace(line)
		switch {
		case n == 0 && string(line) == "[":
		case n > 0 && string(line) == "]":
			return nil
		case err != nil: // only the last line needs no line feed
			return cutShort("listing", err)
		case n == 0:
			return cutShort("listing", errors.New("it does not begin as a list"))
		case len(line) == 0: // an empty list has one
		default:
			m, err := readSummary(bytes.TrimSuffix(line, []byte(",")))
			if err != nil {
				return cutShort("listing", err)
			}
			if err := fn(m); err != nil {
				return err
			}
		}
	}
}

// readSummary decodes one message.
func readSummary(line []byte) (queue.Summary, error) {
	s := scanner{b: line}
	m := s.summary()
	if !s.bad && len(s.b) == 0 {
		return m, nil
	}
	m = queue.Summary{}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("decode message: %w", err)
	}
	return m, nil
}

// scanner reads JSON without white space and with the fields in the order they
// are declared in. Whatever is different sets bad.
type scanner struct {
	b   []byte
	bad bool
}

// lit wants text; opt takes it where it is there.
func (s *scanner) lit(text string) {
	if !s.opt(text) {
		s.bad = true
	}
}

func (s *scanner) opt(text string) bool {
	if s.bad || len(s.b) < len(text) || string(s.b[:len(text)]) != text {
		return false
	}
	s.b = s.b[len(text):]
	return true
}

// str reads a string without escapes.
func (s *scanner) str() string {
	if s.bad || len(s.b) == 0 || s.b[0] != '"' {
		s.bad = true
		return ""
	}
	for i := 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			text := string(s.b[1:i])
			s.b = s.b[i+1:]
			return text
		case c == '\\' || c < ' ' || c >= 0x80: // encoding/json knows what to do
			s.bad = true
			return ""
		}
	}
	s.bad = true
	return ""
}

// num reads a whole number in its shortest form.
func (s *scanner) num() int64 {
	i := 0
	for i < len(s.b) && (s.b[i] == '-' || s.b[i] >= '0' && s.b[i] <= '9') {
		i++
	}
	digits := string(s.b[:i])
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != digits {
		s.bad = true
		return 0
	}
	s.b = s.b[i:]
	return n
}

// time reads a time as it marshals itself.
func (s *scanner) time() time.Time {
	text := s.str()
	if s.bad {
		return time.Time{}
	}
	var t time.Time
	if err := t.UnmarshalText([]byte(text)); err != nil {
		s.bad = true
	}
	return t
}

func (s *scanner) summary() (m queue.Summary) {
	s.lit(`{"id":`)
	m.ID = s.str()
	s.lit(`,"sender":`)
	m.Sender = s.str()
	s.lit(`,"recipients":`)
	if !s.opt("null") {
		m.Recipients = s.recipients()
	}
	s.lit(`,"size_bytes":`)
	m.SizeBytes = s.num()
	s.lit(`,"state":`)
	m.State = queue.State(s.str())
	if s.opt(`,"reason":`) {
		m.Reason = s.str()
	}
	s.lit(`,"received":`)
	m.Received = s.time()
	s.lit(`,"attempts":`)
	m.Attempts = int(s.num())
	if s.opt(`,"next_attempt":`) {
		m.NextAttempt = s.time()
	}
	if s.opt(`,"last_error":`) {
		m.LastError = s.str()
	}
	if s.opt(`,"next_hop":`) {
		m.NextHop = s.str()
	}
	s.lit("}")
	return m
}

func (s *scanner) recipients() []queue.RecipientStatus {
	s.lit("[")
	out := []queue.RecipientStatus{}
	if s.opt("]") {
		return out
	}
	for !s.bad {
		out = append(out, s.recipient())
		if !s.opt(",") {
			break
		}
	}
	s.lit("]")
	return out
}

func (s *scanner) recipient() (r queue.RecipientStatus) {
	s.lit(`{"address":`)
	r.Address = s.str()
	s.lit(`,"state":`)
	r.State = queue.RecipientState(s.str())
	if s.opt(`,"code":`) {
		r.Code = int(s.num())
	}
	if s.opt(`,"enhanced":`) {
		r.Enhanced = s.str()
	}
	if s.opt(`,"text":`) {
		r.Text = s.str()
	}
	if s.opt(`,"relay":`) {
		r.Relay = s.str()
	}
	if s.opt(`,"at":`) {
		r.At = s.time()
	}
	if s.opt(`,"attempts":`) {
		r.Attempts = int(s.num())
	}
	if s.opt(`,"next_attempt":`) {
		r.NextAttempt = s.time()
	}
	s.lit("}")
	return r
}
