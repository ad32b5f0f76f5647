package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	// firstBufferBytes is the buffer of a reader at rest.
	firstBufferBytes = 64 << 10
	// defaultMaxCommand is what Redis takes as one bulk string.
	defaultMaxCommand = 512 << 20
	// maxWords bounds the words of a command.
	maxWords = 1 << 20
	// maxHeaderBytes bounds a length line: "$" and 20 digits fit.
	maxHeaderBytes = 32
)

// errMore: the buffer ends inside a command.
var errMore = errors.New("more bytes needed")

// Reader cuts a stream into commands. It is not for concurrent use.
type Reader struct {
	r        io.Reader
	maxBytes int64

	id     string
	offset int64
	db     int
	inTx   bool

	buf        []byte
	start, end int // unread bytes

	// The command that is being read: all places count from start.
	pos   int
	words int // still to come; -1: the first line is to come
	bulk  int // length of the word that comes next; -1: its line is to come
	spans []span
	args  [][]byte
}

type span struct{ from, to int }

// NewReader reads from r, whose first byte is the one after at; db is the database
// selected there (UnknownDB), inTx says whether a MULTI is open. maxBytes bounds a
// command; 0 is 512 MiB.
func NewReader(r io.Reader, at Point, db int, inTx bool, maxBytes int64) *Reader {
	if maxBytes <= 0 {
		maxBytes = defaultMaxCommand
	}
	return &Reader{r: r, maxBytes: maxBytes, id: at.ID, offset: at.Offset, db: db, inTx: inTx, words: -1, bulk: -1}
}

// At is the place after the last command read.
func (r *Reader) At() Point { return Point{ID: r.id, Offset: r.offset} }

// DB is the database the next command works on.
func (r *Reader) DB() int { return r.db }

// InTx says whether a MULTI is open.
func (r *Reader) InTx() bool { return r.inTx }

// Next returns the next command. io.EOF at the end between two commands,
// io.ErrUnexpectedEOF inside one, ErrProtocol for what is no stream (final: the
// reader stays there). Errors of the underlying reader come as they are, and Next
// may then be called again where reading may go on.
func (r *Reader) Next() (Command, error) {
	for {
		cmd, err := r.Buffered()
		if !errors.Is(err, errMore) {
			return cmd, err
		}
		if err := r.fill(); err != nil {
			return Command{}, err
		}
	}
}

// Buffered returns the next command if all of it has arrived already.
func (r *Reader) Buffered() (Command, error) {
	if err := r.parse(); err != nil {
		return Command{}, err
	}
	raw := r.buf[r.start : r.start+r.pos : r.start+r.pos]
	r.args = r.args[:0]
	for _, s := range r.spans {
		r.args = append(r.args, raw[s.from:s.to:s.to])
	}
	cmd := Command{ID: r.id, Offset: r.offset, End: r.offset + int64(r.pos), Args: r.args, Raw: raw}
	r.offset = cmd.End
	r.start += r.pos
	r.pos, r.words, r.bulk, r.spans = 0, -1, -1, r.spans[:0]
	r.track(&cmd)
	return cmd, nil
}

// track follows SELECT, MULTI and EXEC.
func (r *Reader) track(cmd *Command) {
	switch {
	case cmd.Is("MULTI"):
		r.inTx = true
		cmd.DB = r.db
		return
	case cmd.Is("EXEC"), cmd.Is("DISCARD"):
		r.inTx = false
	case cmd.Is("SELECT") && len(cmd.Args) == 2:
		if n, err := strconv.Atoi(string(cmd.Args[1])); err == nil && n >= 0 {
			r.db = n
		}
	}
	cmd.DB, cmd.InTx = r.db, r.inTx
}

// parse goes on where it stopped, until a command is whole.
func (r *Reader) parse() error {
	if r.words < 0 {
		if done, err := r.parseFirst(); err != nil || done {
			return err
		}
	}
	for r.words > 0 {
		if r.bulk < 0 {
			n, err := r.header('$', r.maxBytes)
			if err != nil {
				return err
			}
			r.bulk = int(n)
		}
		if int64(r.pos)+int64(r.bulk) > r.maxBytes {
			return fmt.Errorf("%w: a command of more than %d bytes", ErrProtocol, r.maxBytes)
		}
		if r.end-r.start-r.pos < r.bulk+2 {
			return errMore
		}
		at := r.start + r.pos
		if r.buf[at+r.bulk] != '\r' || r.buf[at+r.bulk+1] != '\n' {
			return fmt.Errorf("%w: a word without its end", ErrProtocol)
		}
		r.spans = append(r.spans, span{r.pos, r.pos + r.bulk})
		r.pos += r.bulk + 2
		r.bulk = -1
		r.words--
	}
	return nil
}

// parseFirst reads the first line of a command; done where it is all of it.
func (r *Reader) parseFirst() (done bool, err error) {
	unread := r.buf[r.start:r.end]
	switch {
	case len(unread) == 0:
		return false, errMore
	case unread[0] == '\n':
		r.pos = 1
		return true, nil
	case unread[0] == '\r':
		if len(unread) == 1 {
			return false, errMore
		}
		if unread[1] != '\n' {
			return false, fmt.Errorf("%w: a bare carriage return", ErrProtocol)
		}
		r.pos = 2
		return true, nil
	}
	n, err := r.header('*', maxWords)
	if err != nil {
		return false, err
	}
	r.words = int(n)
	return n == 0, nil
}

// header reads a line of mark and a number up to limit.
func (r *Reader) header(mark byte, limit int64) (int64, error) {
	rest := r.buf[r.start+r.pos : r.end]
	if len(rest) > 0 && rest[0] != mark {
		return 0, fmt.Errorf("%w: %q where %q belongs", ErrProtocol, rest[0], mark)
	}
	line, _, found := bytes.Cut(rest, []byte("\n"))
	if !found {
		if len(rest) > maxHeaderBytes {
			return 0, fmt.Errorf("%w: a length without end", ErrProtocol)
		}
		return 0, errMore
	}
	if len(line) < 3 || len(line) > maxHeaderBytes || line[len(line)-1] != '\r' {
		return 0, fmt.Errorf("%w: a length of %d bytes", ErrProtocol, len(line))
	}
	n, ok := number(line[1 : len(line)-1])
	if !ok || n > limit {
		return 0, fmt.Errorf("%w: length %q", ErrProtocol, line[1:len(line)-1])
	}
	r.pos += len(line) + 1
	return n, nil
}

// number reads decimal digits, and nothing else.
func number(digits []byte) (int64, bool) {
	if len(digits) == 0 || len(digits) > 18 {
		return 0, false
	}
	var n int64
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, true
}

// fill reads more. The buffer at most doubles what has arrived.
func (r *Reader) fill() error {
	switch {
	case r.start == r.end:
		r.start, r.end = 0, 0
		if len(r.buf) == 0 || len(r.buf) > 16*firstBufferBytes {
			r.buf = make([]byte, firstBufferBytes)
		}
	case r.end < len(r.buf):
	case r.start > 0:
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	default:
		bigger := make([]byte, 2*len(r.buf))
		copy(bigger, r.buf)
		r.buf = bigger
	}
	n, err := r.r.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) && r.start < r.end {
		return io.ErrUnexpectedEOF
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// line reads one line before the stream starts, without its end. The bytes after
// it stay in the buffer.
func (r *Reader) line() (string, error) {
	for {
		line, _, found := bytes.Cut(r.buf[r.start:r.end], []byte("\n"))
		if found {
			r.start += len(line) + 1
			return string(bytes.TrimSuffix(line, []byte("\r"))), nil
		}
		if r.end-r.start >= firstBufferBytes {
			return "", fmt.Errorf("%w: a reply without end", ErrProtocol)
		}
		if err := r.fill(); err != nil {
			return "", err
		}
	}
}

// bytes reads n bytes and the line end after them, before the stream starts.
func (r *Reader) bytes(n int) (string, error) {
	for r.end-r.start < n+2 {
		if err := r.fill(); err != nil {
			return "", err
		}
	}
	text := string(r.buf[r.start : r.start+n])
	r.start += n + 2
	return text, nil
}
