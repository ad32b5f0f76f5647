package clamd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"understudy/smtp"
	"understudy/spamsync/engine/link"
)

const engineName = "clamd"

// Options say where clamd is.
type Options struct {
	// Addresses as link.Parse reads them, the preferred one first.
	Addresses []string
	// Timeout bounds one Check, all servers together.
	Timeout time.Duration
	// Rest is how long a server that failed is asked last.
	Rest time.Duration
	// MaxBytes is the longest message that is sent; 0 sends all. It should not be
	// above clamd's StreamMaxLength.
	MaxBytes int64
	// AcceptOversize accepts what is too long to be scanned, by MaxBytes or by
	// clamd's own limit; otherwise it is deferred.
	AcceptOversize bool
}

// maxAnswerBytes bounds clamd's one line.
const maxAnswerBytes = 4096

// chunkBytes is the size of one INSTREAM chunk.
const chunkBytes = 64 << 10

// Filter is an smtp.Filter. It may be used concurrently.
type Filter struct {
	opt     Options
	servers *link.Servers
}

var _ smtp.Filter = (*Filter)(nil)

// New checks opt. It dials nothing.
func New(opt Options) (*Filter, error) {
	for _, a := range opt.Addresses {
		if _, _, err := link.Parse(a); err != nil {
			return nil, err
		}
	}
	if opt.Timeout <= 0 {
		return nil, errors.New("clamd needs a timeout")
	}
	servers, err := link.NewServers(opt.Addresses, opt.Rest)
	if err != nil {
		return nil, err
	}
	return &Filter{opt: opt, servers: servers}, nil
}

// Check implements smtp.Filter.
func (f *Filter) Check(ctx context.Context, _ *smtp.Envelope, body io.ReadSeeker) (smtp.Verdict, error) {
	size, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return smtp.Verdict{}, fmt.Errorf("measure message: %w", err)
	}
	if f.opt.MaxBytes > 0 && size > f.opt.MaxBytes {
		return f.oversize(), nil
	}
	var a answer
	err = f.servers.Try(ctx, f.opt.Timeout, func(ctx context.Context, server string) error {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("rewind message: %w", err)
		}
		var err error
		a, err = scan(ctx, server, body, size)
		return err
	})
	if err != nil {
		return smtp.Verdict{}, fmt.Errorf("ask clamd: %w", err)
	}
	switch {
	case a.tooLong:
		return f.oversize(), nil
	case a.found == "":
		return smtp.Verdict{Engine: engineName}, nil
	}
	return smtp.Verdict{
		Action: smtp.Reject, Code: 554, Enhanced: "5.7.1", Text: "Malware found: " + a.found,
		Engine: engineName, Spam: true, Symbols: []smtp.Symbol{{Name: "CLAMD_" + link.Name(a.found)}},
	}, nil
}

// oversize is a verdict and no error: clamd is well.
func (f *Filter) oversize() smtp.Verdict {
	v := smtp.Verdict{Engine: engineName, Symbols: []smtp.Symbol{{Name: "CLAMD_OVERSIZE"}}}
	if !f.opt.AcceptOversize {
		v.Action, v.Code, v.Enhanced, v.Text = smtp.Defer, 451, "4.7.1", "Message is too long to be checked for malware"
	}
	return v
}

// Ping asks the servers for a sign of life: nil means that one gave it.
func (f *Filter) Ping(ctx context.Context) error {
	return f.servers.Try(ctx, f.opt.Timeout, func(ctx context.Context, server string) error {
		conn, err := link.Dial(ctx, server, maxAnswerBytes)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, "zPING\x00"); err != nil {
			return fmt.Errorf("send PING: %w", err)
		}
		line, err := readAnswer(conn)
		if err != nil {
			return err
		}
		if line != "PONG" {
			return fmt.Errorf("unexpected answer %q", link.Text(line, 100))
		}
		return nil
	})
}

// answer is what clamd said of one message.
type answer struct {
	found   string // the name of the malware
	tooLong bool   // beyond clamd's own limit
}

// scan sends the message in chunks and reads the answer.
func scan(ctx context.Context, server string, body io.Reader, size int64) (answer, error) {
	conn, err := link.Dial(ctx, server, maxAnswerBytes)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = conn.Close() }()
	sendErr := send(conn, body, size)
	var unread *readError
	if errors.As(sendErr, &unread) || ctx.Err() != nil {
		return answer{}, sendErr
	}
	// clamd ends a stream beyond its limit with an answer: it goes before the
	// error of writing.
	line, err := readAnswer(conn)
	if err != nil {
		return answer{}, errors.Join(sendErr, err)
	}
	a, err := parse(line)
	if err == nil && sendErr != nil && !a.tooLong {
		return answer{}, sendErr // it has not seen the whole message
	}
	return a, err
}

// readError is a failure of the message, not of clamd.
type readError struct{ err error }

func (e *readError) Error() string { return "read message: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// send sends the whole message: half of one must not be taken for clean.
func send(conn io.Writer, body io.Reader, size int64) error {
	if _, err := io.WriteString(conn, "zINSTREAM\x00"); err != nil {
		return fmt.Errorf("send command: %w", err)
	}
	buf := make([]byte, 4+chunkBytes)
	for sent := int64(0); ; {
		n, err := io.ReadFull(body, buf[4:])
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return &readError{err}
		}
		if sent += int64(n); last && sent != size {
			return &readError{fmt.Errorf("%d of %d bytes: %w", sent, size, io.ErrUnexpectedEOF)}
		}
		binary.BigEndian.PutUint32(buf, uint32(n))
		end := 4 + n
		if n > 0 && last { // the last chunk and the end go together
			buf = append(buf[:end], 0, 0, 0, 0)
			end = len(buf)
		}
		if _, err := conn.Write(buf[:end]); err != nil {
			return fmt.Errorf("send message: %w", err)
		}
		if last {
			return nil
		}
	}
}

// readAnswer reads one answer, ended by NUL.
func readAnswer(r io.Reader) (string, error) {
	line, err := bufio.NewReaderSize(r, maxAnswerBytes).ReadSlice(0)
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", link.ErrTooLong
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", fmt.Errorf("read answer: %w", err)
	}
	return string(bytes.TrimSuffix(line, []byte{0})), nil
}

// parse reads "stream: OK", "stream: NAME FOUND" and "... ERROR".
func parse(line string) (answer, error) {
	const tooLong = "INSTREAM size limit exceeded. ERROR"
	if line == tooLong {
		return answer{tooLong: true}, nil
	}
	rest, ok := strings.CutPrefix(line, "stream: ")
	if ok && rest == "OK" {
		return answer{}, nil
	}
	if name, found := strings.CutSuffix(rest, " FOUND"); ok && found {
		if name = link.Text(name, 100); name != "" {
			return answer{found: name}, nil
		}
	}
	return answer{}, fmt.Errorf("unexpected answer %q", link.Text(line, 200))
}
