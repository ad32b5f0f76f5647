package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of one reply. RFC 5321, section 4.5.3.1.5 allows 512 octets a line;
// servers exceed that in practice.
const (
	maxReplyLineBytes = 4096
	maxReplyLines     = 256
	maxReplyBytes     = 64 << 10
)

// ErrReply is wrapped by every error about a reply that is not SMTP. The
// connection cannot be used after it: commands and replies are out of step.
var ErrReply = errors.New("malformed reply")

// Reply is one answer of a server, RFC 5321, section 4.2.
type Reply struct {
	// Code is 200 to 599; 0 where no reply came.
	Code int
	// Enhanced is the code of RFC 2034 ("5.1.1"); empty where the server gave none.
	Enhanced string
	// Text is the text without codes, the lines joined by "\n", made printable.
	Text string
}

// Positive says that the reply is 2xx.
func (r Reply) Positive() bool { return r.Code >= 200 && r.Code < 300 }

// Temporary says that the reply is 4xx.
func (r Reply) Temporary() bool { return r.Code >= 400 && r.Code < 500 }

// Permanent says that the reply is 5xx.
func (r Reply) Permanent() bool { return r.Code >= 500 && r.Code < 600 }

// String is the reply on one line, as a log shows it.
func (r Reply) String() string {
	s := strings.ReplaceAll(r.Text, "\n", " / ")
	if r.Enhanced != "" {
		s = r.Enhanced + " " + s
	}
	return strings.TrimSpace(strconv.Itoa(r.Code) + " " + s)
}

// readReply reads one reply of any number of lines. Errors of the reader come
// back as they are; everything that is no reply wraps ErrReply.
func readReply(r *bufio.Reader) (Reply, error) {
	var rep Reply
	var text []string
	total := 0
	for n := 0; ; n++ {
		if n == maxReplyLines {
			return Reply{}, fmt.Errorf("%w: more than %d lines", ErrReply, maxReplyLines)
		}
		line, err := readReplyLine(r)
		if err != nil {
			return Reply{}, err
		}
		if total += len(line); total > maxReplyBytes {
			return Reply{}, fmt.Errorf("%w: longer than %d bytes", ErrReply, maxReplyBytes)
		}
		code, more, rest, err := splitReplyLine(line)
		if err != nil {
			return Reply{}, err
		}
		if n > 0 && code != rep.Code {
			return Reply{}, fmt.Errorf("%w: code %d continues %d", ErrReply, code, rep.Code)
		}
		rep.Code = code
		enhanced, rest := splitEnhanced(code, rest)
		if enhanced != "" {
			rep.Enhanced = enhanced
		}
		text = append(text, clientPrintable(rest))
		if !more {
			rep.Text = strings.Join(text, "\n")
			return rep, nil
		}
	}
}

// readReplyLine returns one line without its CRLF; valid until the next read.
func readReplyLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("%w: line longer than %d bytes", ErrReply, r.Size())
	case err != nil:
		return nil, err
	case len(line) < 2 || line[len(line)-2] != '\r':
		return nil, fmt.Errorf("%w: line not ended by CRLF", ErrReply)
	}
	return line[:len(line)-2], nil
}

// splitReplyLine takes a line apart: RFC 5321, section 4.2, Reply-line.
func splitReplyLine(line []byte) (code int, more bool, text []byte, err error) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !clientDigit(line[1]) || !clientDigit(line[2]) {
		return 0, false, nil, fmt.Errorf("%w: %q", ErrReply, clientClip(line))
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, false, nil, nil
	}
	switch line[3] {
	case ' ':
		return code, false, line[4:], nil
	case '-':
		return code, true, line[4:], nil
	}
	return 0, false, nil, fmt.Errorf("%w: %q", ErrReply, clientClip(line))
}

// splitEnhanced takes a status code (RFC 3463, section 2) off the front of text
// where it is one and its class agrees with the reply's.
func splitEnhanced(code int, text []byte) (string, []byte) {
	word, rest, _ := bytes.Cut(text, []byte{' '})
	parts := bytes.Split(word, []byte{'.'})
	if len(parts) != 3 || len(parts[0]) != 1 || int(parts[0][0]-'0') != code/100 {
		return "", text
	}
	for _, p := range parts[1:] {
		if len(p) < 1 || len(p) > 3 {
			return "", text
		}
		for _, b := range p {
			if !clientDigit(b) {
				return "", text
			}
		}
	}
	return string(word), rest
}

func clientDigit(b byte) bool { return b >= '0' && b <= '9' }

func clientClip(b []byte) []byte { return b[:min(len(b), 60)] }

// clientPrintable keeps text fit for logs and terminals: control characters and bad
// UTF-8 become '?'.
func clientPrintable(b []byte) string {
	clean := true
	for _, c := range b {
		if c < ' ' || c > '~' {
			clean = false
			break
		}
	}
	if clean {
		return string(b)
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError || (r >= 0x7f && r < 0xa0) || (r >= 0x2028 && r <= 0x202e) {
			return '?'
		}
		return r
	}, string(b))
}
