package milter

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"understudy/smtp"
)

// header is a message's header while milters change it.
type header struct{ fields []*field }

// field is one field; it came with the message or was added.
type field struct {
	name  string
	value string // with its leading space, lines folded by LF
	// nth is its number among the message's fields of that name, from 1, and at
	// its number among all of them; both are 0 where a milter added it.
	nth, at int
	changed bool
	gone    bool
}

// readHeader takes the header apart. bodyAt is where the body begins: behind the
// empty line, or at the first line that cannot be of a header. Beyond maxBytes all
// is body.
func readHeader(in *bufio.Reader, maxBytes int64) (h *header, bodyAt int64, err error) {
	h = &header{}
	counts := make(map[string]int)
	var name string
	var raw []byte // of the current field
	var at int64   // end of the current field
	end := func() {
		if name == "" {
			return
		}
		key := strings.ToLower(name)
		counts[key]++
		value := strings.TrimRight(cleanValue(raw), "\n")
		h.fields = append(h.fields, &field{name: name, value: value, nth: counts[key], at: len(h.fields) + 1})
		name, raw = "", raw[:0]
	}
	for {
		line, n, err := readLine(in, maxBytes-at)
		if err != nil && !errors.Is(err, io.EOF) {
			if errors.Is(err, errTooMuch) {
				end()
				return h, at, nil
			}
			return nil, 0, err
		}
		text := bytes.TrimRight(line, "\r\n")
		switch {
		case len(line) == 0: // the end
			end()
			return h, at, nil
		case len(text) == 0:
			end()
			return h, at + n, nil
		case (line[0] == ' ' || line[0] == '\t') && name != "":
			raw = appendBounded(raw, line)
		default:
			end()
			before, after, ok := bytes.Cut(line, []byte(":"))
			before = bytes.TrimRight(before, " \t")
			if !ok || !fieldName(before) {
				return h, at, nil
			}
			name = string(before)
			raw = appendBounded(raw, after)
		}
		at += n
	}
}

var errTooMuch = errors.New("header is longer than what is looked at")

// readLine reads one line; more than maxFieldBytes of it are dropped, but counted
// in n.
func readLine(in *bufio.Reader, left int64) (line []byte, n int64, err error) {
	for {
		piece, err := in.ReadSlice('\n')
		n += int64(len(piece))
		if n > left {
			return nil, n, errTooMuch
		}
		line = appendBounded(line, piece)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return line, n, err
	}
}

func appendBounded(b, more []byte) []byte {
	return append(b, more[:min(len(more), max(0, maxFieldBytes-len(b)))]...)
}

// cleanValue writes line ends as LF, as mail servers tell them to milters. Other
// bytes stay as they are: signatures cover them.
func cleanValue(raw []byte) string {
	s := strings.ReplaceAll(string(raw), "\r\n", "\n")
	return strings.NewReplacer("\x00", "?", "\r", "?").Replace(s)
}

func fieldName(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(b) > 0
}

// snapshot returns the fields that are there now: what a milter counts.
func (h *header) snapshot() []*field {
	out := make([]*field, 0, len(h.fields))
	for _, f := range h.fields {
		if !f.gone {
			out = append(out, f)
		}
	}
	return out
}

// add puts a field behind all others.
func (h *header) add(name, value string) {
	h.fields = append(h.fields, &field{name: name, value: value})
}

// insert puts a field at an index into the snapshot: 0 is in front of our own
// trace line, 1 behind it; both are in front of the message's fields.
func (h *header) insert(before []*field, index uint32, name, value string) {
	f := &field{name: name, value: value}
	at := max(int64(index)-1, 0)
	if at >= int64(len(before)) {
		h.fields = append(h.fields, f)
		return
	}
	i := slices.Index(h.fields, before[at])
	h.fields = slices.Insert(h.fields, i, f)
}

// change gives the n-th field of a name another value; an empty one removes it.
// Beyond the last, a field is added.
func (h *header) change(before []*field, index uint32, name, value string) {
	n := max(index, 1)
	for _, f := range before {
		if !strings.EqualFold(f.name, name) {
			continue
		}
		if n--; n > 0 {
			continue
		}
		f.gone = value == ""
		f.changed, f.name, f.value = true, name, value
		return
	}
	if value != "" {
		h.add(name, value)
	}
}

// changes says how to get from the message's header to this one.
func (h *header) changes() (front string, edits []smtp.HeaderEdit) {
	var b strings.Builder
	var waiting []*field // added, in front of the next field of the message
	first := true
	for _, f := range h.fields {
		switch {
		case f.nth == 0 && f.gone:
			continue
		case f.nth == 0:
			waiting = append(waiting, f)
			continue
		}
		for _, w := range waiting {
			if first {
				b.WriteString(smtp.FormatHeader(w.name, w.value))
			} else {
				edits = append(edits, smtp.HeaderEdit{Op: smtp.InsertHeader, Name: w.name, Index: f.at, Value: w.value})
			}
		}
		waiting, first = nil, false
		if f.gone {
			edits = append(edits, smtp.HeaderEdit{Op: smtp.RemoveHeader, Name: f.name, Index: f.nth})
		} else if f.changed {
			edits = append(edits, smtp.HeaderEdit{Op: smtp.ReplaceHeader, Name: f.name, Index: f.nth, Value: f.value})
		}
	}
	for _, w := range waiting {
		if first {
			b.WriteString(smtp.FormatHeader(w.name, w.value))
		} else {
			edits = append(edits, smtp.HeaderEdit{Op: smtp.AppendHeader, Name: w.name, Value: w.value})
		}
	}
	return b.String(), edits
}

// markedSpam says whether a milter marked the message as spam in one of the usual
// ways; what the message itself says does not count.
func (h *header) markedSpam() bool {
	for _, f := range h.fields {
		if f.gone || f.nth != 0 && !f.changed {
			continue
		}
		switch strings.ToLower(f.name) {
		case "x-spam", "x-spam-flag", "x-spam-status":
			if strings.HasPrefix(strings.ToLower(strings.TrimSpace(f.value)), "yes") {
				return true
			}
		}
	}
	return false
}
