package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// HeaderOp is what a HeaderEdit does.
type HeaderOp uint8

// The changes of a header.
const (
	// RemoveHeader drops the field.
	RemoveHeader HeaderOp = iota
	// ReplaceHeader gives the field another value. Without such a field it is
	// appended. With Index 0 the first field gets the value and the others go.
	ReplaceHeader
	// AppendHeader adds a field behind all others.
	AppendHeader
	// InsertHeader adds a field in front of the Index-th field of any name; up to
	// 1 is in front of all, beyond the last is behind all.
	InsertHeader
)

// HeaderEdit is one change of a message's header. Indices count the message as
// the filter was given it and never shift: what an earlier edit removed still
// counts, what it added does not. Of several edits of one field the last wins.
type HeaderEdit struct {
	Op   HeaderOp
	Name string
	// Index is the number of the field among those of its name, from 1; 0 is all
	// of them.
	Index int
	// Value is the field's body; it may be folded.
	Value string
}

// editChunk is how much of a line is looked at in one piece, in bytes.
const editChunk = 32 << 10

// WriteEdited copies a message from r to w with the edits made to its header. The
// body is copied byte for byte. Memory does not depend on the message.
func WriteEdited(w io.Writer, r io.Reader, edits []HeaderEdit) error {
	e := &headerEditor{out: bufio.NewWriterSize(w, editChunk), plan: planEdits(edits), counts: make(map[string]int)}
	if err := e.run(r, edits); err != nil {
		return err
	}
	return e.out.Flush()
}

// editPlan is a list of edits by what they touch.
type editPlan struct {
	fields  map[string]*fieldPlan
	inserts map[int][]HeaderEdit
}

// fieldPlan holds the edits of one name; nth goes before all.
type fieldPlan struct {
	all *HeaderEdit
	nth map[int]HeaderEdit
}

func planEdits(edits []HeaderEdit) editPlan {
	p := editPlan{fields: make(map[string]*fieldPlan), inserts: make(map[int][]HeaderEdit)}
	for _, e := range edits {
		if !isFieldName(e.Name) || strings.Contains(e.Name, ":") || e.Index < 0 {
			continue
		}
		switch e.Op {
		case AppendHeader:
			continue
		case InsertHeader:
			at := max(e.Index, 1)
			p.inserts[at] = append(p.inserts[at], e)
			continue
		case RemoveHeader, ReplaceHeader:
		}
		key := strings.ToLower(e.Name)
		f := p.fields[key]
		if f == nil {
			f = &fieldPlan{}
			p.fields[key] = f
		}
		if e.Index == 0 {
			f.all, f.nth = &e, nil
			continue
		}
		if f.nth == nil {
			f.nth = make(map[int]HeaderEdit)
		}
		f.nth[e.Index] = e
	}
	return p
}

// at returns what becomes of the n-th field of a name.
func (p editPlan) at(key string, n int) (HeaderEdit, bool) {
	f := p.fields[key]
	if f == nil {
		return HeaderEdit{}, false
	}
	if e, ok := f.nth[n]; ok {
		return e, true
	}
	if f.all == nil {
		return HeaderEdit{}, false
	}
	e := *f.all
	if n > 1 {
		e.Op = RemoveHeader
	}
	return e, true
}

// headerEditor copies one message.
type headerEditor struct {
	out    *bufio.Writer
	plan   editPlan
	counts map[string]int // fields seen by name, lower case
	total  int
	drop   bool // the current field is left out
	eol    bool // the last byte written ended a line
}

func (e *headerEditor) run(r io.Reader, edits []HeaderEdit) error {
	in := bufio.NewReaderSize(r, editChunk)
	start := true // of a line
	e.eol = true
	for {
		chunk, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err
		}
		if start && len(chunk) > 0 {
			if len(bytes.TrimRight(chunk, "\r\n")) == 0 && err == nil {
				e.finish(edits)
				e.write(chunk)
				_, err = io.Copy(e.out, in)
				return err
			}
			if chunk[0] != ' ' && chunk[0] != '\t' {
				e.field(chunk)
			}
		}
		if !e.drop {
			e.write(chunk)
		}
		if errors.Is(err, io.EOF) {
			if !e.eol {
				e.write([]byte("\r\n"))
			}
			e.finish(edits)
			return nil
		}
		start = err == nil
	}
}

// write keeps the first error in out; Flush reports it.
func (e *headerEditor) write(p []byte) {
	if len(p) > 0 {
		_, _ = e.out.Write(p)
		e.eol = p[len(p)-1] == '\n'
	}
}

// field decides about the field whose first line this is.
func (e *headerEditor) field(line []byte) {
	e.drop = false
	e.total++
	for _, i := range e.plan.inserts[e.total] {
		e.write([]byte(FormatHeader(i.Name, i.Value)))
	}
	name, _, ok := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	if !ok || !isFieldName(string(name)) {
		return
	}
	key := strings.ToLower(string(name))
	if e.plan.fields[key] == nil {
		return
	}
	e.counts[key]++
	edit, ok := e.plan.at(key, e.counts[key])
	if !ok {
		return
	}
	e.drop = true
	if edit.Op == ReplaceHeader {
		e.write([]byte(FormatHeader(edit.Name, edit.Value)))
	}
}

// finish adds at the end of the header what belongs there.
func (e *headerEditor) finish(edits []HeaderEdit) {
	for _, edit := range edits {
		key := strings.ToLower(edit.Name)
		add := edit.Op == AppendHeader || edit.Op == InsertHeader && edit.Index > e.total && edit.Index > 1 ||
			edit.Op == InsertHeader && e.total == 0
		if edit.Op == ReplaceHeader && edit.Index >= 0 {
			n := max(edit.Index, 1)
			if last, ok := e.plan.at(key, n); ok && last == edit {
				add = n > e.counts[key]
			}
		}
		if add {
			e.write([]byte(FormatHeader(edit.Name, edit.Value)))
		}
	}
}

// maxHeaderLine is the longest line FormatHeader writes, in bytes without CRLF
// (RFC 5322, section 2.1.1).
const maxHeaderLine = 998

// FormatHeader returns one header field, ended by CRLF, that is one field whatever
// value holds: lines of value become folded lines, empty ones are left out,
// control characters become "?" and overlong lines are folded. An impossible name
// gives "".
func FormatHeader(name, value string) string {
	if !isFieldName(name) || strings.Contains(name, ":") {
		return ""
	}
	value = strings.ToValidUTF8(value, "?")
	var b strings.Builder
	b.WriteString(name)
	b.WriteByte(':')
	used := b.Len()
	first := true
	for line := range strings.SplitSeq(value, "\n") {
		line = strings.Map(func(c rune) rune {
			if c < ' ' && c != '\t' || c == 0x7f {
				return '?'
			}
			return c
		}, strings.Trim(line, "\r"))
		indent := " "
		if !first && strings.HasPrefix(line, "\t") {
			indent = "\t"
		}
		line = strings.Trim(line, " \t")
		if line == "" {
			continue
		}
		if !first {
			b.WriteString("\r\n")
			used = 0
		}
		first = false
		for line != "" {
			piece := line
			if room := maxHeaderLine - used - 1; len(line) > room {
				piece = line[:foldAt(line, room)]
			}
			line = strings.TrimLeft(line[len(piece):], " \t")
			b.WriteString(indent)
			b.WriteString(strings.TrimRight(piece, " \t"))
			if line != "" {
				b.WriteString("\r\n")
				used, indent = 0, "\t"
			}
		}
	}
	b.WriteString("\r\n")
	return b.String()
}

// foldAt returns where to cut line so that the first piece has at most room
// bytes: at white space if there is some, never inside a character.
func foldAt(line string, room int) int {
	if i := strings.LastIndexAny(line[:room], " \t"); i > 0 {
		return i
	}
	for i := room; i > 0; i-- {
		if c := line[i]; c < 0x80 || c >= 0xc0 {
			return i
		}
	}
	return room
}

// HeaderField is one field of a message's header.
type HeaderField struct {
	// Name is as written, Value unfolded and without white space at its ends.
	Name, Value string
}

// ErrHeaderTooLong is returned by ReadHeader for a header beyond its bound.
var ErrHeaderTooLong = errors.New("header of the message is too long")

// ReadHeader returns the fields of the message that r begins with, in order, as
// WriteEdited counts them: a line that is no field has an empty name. A header of
// more than maxBytes gives the fields up to there and ErrHeaderTooLong.
func ReadHeader(r io.Reader, maxBytes int64) ([]HeaderField, error) {
	limited := &io.LimitedReader{R: r, N: maxBytes}
	in := bufio.NewReaderSize(limited, 4<<10)
	var fields []HeaderField
	var value strings.Builder
	end := func() {
		if n := len(fields); n > 0 {
			fields[n-1].Value = strings.TrimSpace(value.String())
		}
		value.Reset()
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		text := strings.TrimRight(line, "\r\n")
		switch {
		case text == "":
		case text[0] == ' ' || text[0] == '\t':
			value.WriteString(" ")
			value.WriteString(strings.Trim(text, " \t"))
		default:
			end()
			name, rest, ok := strings.Cut(text, ":")
			if name = strings.TrimRight(name, " \t"); !ok || !isFieldName(name) {
				name, rest = "", text
			}
			fields = append(fields, HeaderField{Name: name})
			value.WriteString(rest)
		}
		if text == "" && len(line) > 0 && err == nil || err != nil {
			end()
			if err != nil && limited.N <= 0 {
				return fields, ErrHeaderTooLong
			}
			return fields, nil
		}
	}
}
