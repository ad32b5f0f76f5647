package wire

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// decoder reads responses, byte by byte and within limits.
type decoder struct {
	br    *bufio.Reader
	lim   *Limits
	line  int64 // bytes of this response so far, streamed literals not counted
	words map[string]string
	buf   []byte
}

// start begins a new response.
func (d *decoder) start() { d.line = 0 }

func (d *decoder) byte() (byte, error) {
	b, err := d.br.ReadByte()
	if err != nil {
		return 0, unexpected(err)
	}
	if d.line++; d.line > d.lim.LineBytes {
		return 0, protocol("response longer than %d bytes", d.lim.LineBytes)
	}
	return b, nil
}

// peek looks at the next byte.
func (d *decoder) peek() (byte, error) {
	b, err := d.br.Peek(1)
	if err != nil {
		return 0, unexpected(err)
	}
	return b[0], nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// expect reads exactly s.
func (d *decoder) expect(s string) error {
	for i := range len(s) {
		b, err := d.byte()
		if err != nil {
			return err
		}
		if b != s[i] {
			return protocol("%q where %q should be", b, s)
		}
	}
	return nil
}

// accept reads b if it comes next.
func (d *decoder) accept(b byte) (bool, error) {
	next, err := d.peek()
	if err != nil || next != b {
		return false, err
	}
	_, err = d.byte()
	return true, err
}

func (d *decoder) space() error { return d.expect(" ") }

// RFC 3501, section 9: what may not be in an atom. A server's atoms may have brackets,
// wildcards and backslashes in them (flags, sections, sets).
func atomByte(b byte) bool {
	switch b {
	case ' ', '(', ')', '{', '"', 0x7f:
		return false
	}
	return b > 0x20
}

// atom reads the bytes up to the next that stop says ends it, or that no atom may have.
func (d *decoder) atom(stops string) (string, error) {
	d.buf = d.buf[:0]
	for {
		b, err := d.peek()
		if err != nil {
			return "", err
		}
		if !atomByte(b) || strings.IndexByte(stops, b) >= 0 {
			break
		}
		if _, err := d.byte(); err != nil {
			return "", err
		}
		if d.buf = append(d.buf, b); int64(len(d.buf)) > d.lim.StringBytes {
			return "", protocol("word longer than %d bytes", d.lim.StringBytes)
		}
	}
	if len(d.buf) == 0 {
		b, _ := d.peek() // it was there just now
		return "", protocol("%q where a word should be", b)
	}
	return d.intern(d.buf), nil
}

// intern keeps one copy of a word: a scan of flags brings the same few a hundred
// thousand times.
func (d *decoder) intern(b []byte) string {
	if s, ok := d.words[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(s) <= 64 && len(d.words) < 512 {
		if d.words == nil {
			d.words = make(map[string]string)
		}
		d.words[s] = s
	}
	return s
}

// keyword reads an atom in upper case.
func (d *decoder) keyword(stops string) (string, error) {
	s, err := d.atom(stops)
	return strings.ToUpper(s), err
}

// number64 reads digits of at most 63 bits (RFC 9051, section 9: number64).
func (d *decoder) number64() (int64, error) {
	var n int64
	for digits := 0; ; digits++ {
		b, err := d.peek()
		if err != nil {
			return 0, err
		}
		if b < '0' || b > '9' {
			if digits == 0 {
				return 0, protocol("%q where a number should be", b)
			}
			return n, nil
		}
		if _, err := d.byte(); err != nil {
			return 0, err
		}
		if digits >= 19 || n > (1<<63-1-9)/10 {
			return 0, protocol("number too long")
		}
		n = n*10 + int64(b-'0')
	}
}

func (d *decoder) number32() (uint32, error) {
	n, err := d.number64()
	if err == nil && n > 1<<32-1 {
		return 0, protocol("number %d does not fit into 32 bits", n)
	}
	return uint32(n), err
}

// nonzero reads a UID or UIDVALIDITY.
func (d *decoder) nonzero() (uint32, error) {
	n, err := d.number32()
	if err == nil && n == 0 {
		return 0, protocol("0 where a number above 0 should be")
	}
	return n, err
}

func (d *decoder) quoted(limit int64) (string, error) {
	if err := d.expect(`"`); err != nil {
		return "", err
	}
	d.buf = d.buf[:0]
	for {
		b, err := d.byte()
		switch {
		case err != nil:
			return "", err
		case b == '"':
			return d.intern(d.buf), nil
		case b == '\\':
			if b, err = d.byte(); err != nil {
				return "", err
			}
			// RFC 3501 has only \" and \\ here; some servers escape more.
			if b == '\r' || b == '\n' {
				return "", protocol("quoted string without an end")
			}
		case b == '\r', b == '\n', b == 0:
			return "", protocol("byte %#x in a quoted string", b)
		}
		if d.buf = append(d.buf, b); int64(len(d.buf)) > limit {
			return "", protocol("string longer than %d bytes", limit)
		}
	}
}

// literal reads the head of a literal, "{n}" or "~{n}" and CRLF, and returns n.
func (d *decoder) literal(limit int64) (int64, error) {
	if _, err := d.accept('~'); err != nil {
		return 0, err
	}
	if err := d.expect("{"); err != nil {
		return 0, err
	}
	n, err := d.number64()
	if err != nil {
		return 0, err
	}
	if _, err := d.accept('+'); err != nil {
		return 0, err
	}
	if err := d.expect("}\r\n"); err != nil {
		return 0, err
	}
	if n > limit {
		return 0, protocol("literal of %d bytes, more than %d", n, limit)
	}
	return n, nil
}

// text reads a string, quoted or literal, or an atom (astring).
func (d *decoder) text(limit int64) (string, error) {
	b, err := d.peek()
	switch {
	case err != nil:
		return "", err
	case b == '"':
		return d.quoted(limit)
	case b == '{' || b == '~':
		n, err := d.literal(limit)
		if err != nil {
			return "", err
		}
		// Not make(n): memory is given as bytes arrive.
		s, err := io.ReadAll(io.LimitReader(d.br, n))
		if err == nil && int64(len(s)) != n {
			err = io.ErrUnexpectedEOF
		}
		if d.line += n; err == nil && d.line > d.lim.LineBytes {
			err = protocol("response longer than %d bytes", d.lim.LineBytes)
		}
		return string(s), err
	}
	return d.atom("")
}

// nstring reads a string or NIL.
func (d *decoder) nstring(limit int64) (s string, ok bool, err error) {
	b, err := d.peek()
	if err != nil {
		return "", false, err
	}
	s, err = d.text(limit)
	if b != '"' && b != '{' && b != '~' && strings.EqualFold(s, "NIL") {
		return "", false, err
	}
	return s, true, err
}

// list calls item for each element of a parenthesised list, at most Limits.Items times.
func (d *decoder) list(item func() error) error {
	if err := d.expect("("); err != nil {
		return err
	}
	for n := 0; ; n++ {
		if done, err := d.accept(')'); done || err != nil {
			return err
		}
		if n >= d.lim.Items {
			return protocol("list of more than %d items", d.lim.Items)
		}
		if n > 0 {
			if err := d.space(); err != nil {
				return err
			}
			// Some servers leave a blank before the end.
			if done, err := d.accept(')'); done || err != nil {
				return err
			}
		}
		if err := item(); err != nil {
			return err
		}
	}
}

// skip reads a value of any kind: what an extension adds and nobody here asked for.
func (d *decoder) skip(depth int) error {
	if depth > d.lim.Depth {
		return protocol("nested deeper than %d", d.lim.Depth)
	}
	b, err := d.peek()
	switch {
	case err != nil:
		return err
	case b == '(':
		return d.list(func() error { return d.skip(depth + 1) })
	case b == '{' || b == '~':
		n, err := d.literal(d.lim.MessageBytes)
		if err != nil {
			return err
		}
		return d.discard(n)
	case b == '"':
		_, err = d.quoted(d.lim.LineBytes)
		return err
	}
	_, err = d.atom("")
	return err
}

func (d *decoder) discard(n int64) error {
	if m, err := io.CopyN(io.Discard, d.br, n); m < n {
		return unexpected(err)
	}
	return nil
}

// skipLine reads to the end of a response of unknown kind, over literals.
func (d *decoder) skipLine() error {
	for {
		end, err := d.rest()
		if err != nil {
			return err
		}
		n, ok := literalAtEnd(end)
		if !ok {
			return nil
		}
		if n > d.lim.MessageBytes {
			return protocol("literal of %d bytes, more than %d", n, d.lim.MessageBytes)
		}
		if err := d.discard(n); err != nil {
			return err
		}
	}
}

// rest reads up to CRLF and returns the last bytes before it.
func (d *decoder) rest() ([]byte, error) {
	d.buf = d.buf[:0]
	for {
		b, err := d.byte()
		if err != nil {
			return nil, err
		}
		if b == '\n' {
			if n := len(d.buf); n > 0 && d.buf[n-1] == '\r' {
				return d.buf[:n-1], nil
			}
			return nil, protocol("line without CR")
		}
		if len(d.buf) >= 2048 {
			d.buf = append(d.buf[:0], d.buf[1024:]...)
		}
		d.buf = append(d.buf, b)
	}
}

func literalAtEnd(line []byte) (int64, bool) {
	s, ok := strings.CutSuffix(string(line[max(0, len(line)-24):]), "}")
	if !ok {
		return 0, false
	}
	s = s[strings.LastIndexByte(s, '{')+1:]
	s = strings.TrimSuffix(s, "+")
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// human reads the text of a status response: the first bytes of it, without what
// would spoil a log.
func (d *decoder) human() (string, error) {
	var s []byte
	for {
		b, err := d.byte()
		if err != nil {
			return "", err
		}
		if b == '\n' {
			if n := len(s); n > 0 && s[n-1] == '\r' {
				s = s[:n-1]
			}
			return strings.ToValidUTF8(string(s), "?"), nil
		}
		if b < 0x20 && b != '\r' {
			b = '?'
		}
		if len(s) < 500 || b == '\r' {
			s = append(s, b)
		}
		if len(s) > 1000 {
			s = s[:500]
		}
	}
}

// uids reads a set of UIDs in the server's order: "4:5,9". "*" is not allowed.
func (d *decoder) uids() ([]imap.UIDRange, error) {
	var set []imap.UIDRange
	for {
		start, err := d.nonzero()
		if err != nil {
			return nil, err
		}
		stop := start
		if ranged, err := d.accept(':'); err != nil {
			return nil, err
		} else if ranged {
			if stop, err = d.nonzero(); err != nil {
				return nil, err
			}
		}
		if start > stop { // RFC 3501, section 9: seq-range, in either order
			start, stop = stop, start
		}
		if len(set) >= d.lim.Ranges {
			return nil, protocol("set of more than %d ranges", d.lim.Ranges)
		}
		set = append(set, imap.UIDRange{Start: imap.UID(start), Stop: imap.UID(stop)})
		if more, err := d.accept(','); err != nil || !more {
			return set, err
		}
	}
}

// normal sorts and joins ranges, so that imap.UIDSet's own methods hold.
func normal(ranges []imap.UIDRange) imap.UIDSet {
	if len(ranges) == 0 {
		return nil
	}
	slices.SortFunc(ranges, func(a, b imap.UIDRange) int {
		if a.Start < b.Start {
			return -1
		}
		if a.Start > b.Start {
			return 1
		}
		return 0
	})
	set := ranges[:1]
	for _, r := range ranges[1:] {
		last := &set[len(set)-1]
		if uint64(r.Start) <= uint64(last.Stop)+1 {
			last.Stop = max(last.Stop, r.Stop)
			continue
		}
		set = append(set, r)
	}
	return set
}
