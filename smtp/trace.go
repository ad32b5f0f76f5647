package smtp

import (
	"bytes"
	"strings"
)

// maxTraceBytes bounds how much of one header field is kept to be looked at.
const maxTraceBytes = 2048

// traceScan counts the trace lines of a message that passes by in pieces.
type traceScan struct {
	hops int // Received lines
	own  int // those that we wrote

	mark  []byte // "by HOST (understudy)", lower case
	field []byte // the current field, folded lines joined by a space
	line  []byte // the current line as far as it is kept
	done  bool   // the header has ended
}

// traceMark is what a traceScan knows our own lines by.
func traceMark(hostname string) []byte { return []byte(strings.ToLower(" by " + hostname + ownMark)) }

func newTraceScan(mark []byte) *traceScan {
	return &traceScan{mark: mark, line: make([]byte, 0, 256)}
}

// scan looks at the next bytes of the message.
func (t *traceScan) scan(p []byte) {
	for len(p) > 0 && !t.done {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			t.keep(p)
			return
		}
		t.keep(p[:i])
		p = p[i+1:]
		t.endLine()
	}
}

func (t *traceScan) keep(p []byte) {
	if room := maxTraceBytes - len(t.line); len(p) > room {
		p = p[:room]
	}
	t.line = append(t.line, p...)
}

func (t *traceScan) endLine() {
	line := bytes.TrimSuffix(t.line, []byte{'\r'})
	switch {
	case len(line) == 0:
		t.endField()
		t.done = true
	case line[0] == ' ' || line[0] == '\t':
		if room := maxTraceBytes - len(t.field); len(t.field) > 0 && len(line) <= room {
			t.field = append(t.field, ' ')
			t.field = append(t.field, bytes.TrimSpace(line)...)
		}
	default:
		t.endField()
		if len(line) >= 9 && bytes.EqualFold(line[:8], []byte("received")) && bytes.HasPrefix(bytes.TrimLeft(line[8:], " \t"), []byte(":")) {
			t.field = append(t.field, line...)
		}
	}
	t.line = t.line[:0]
}

// endField judges the Received field that is complete now, if there is one.
func (t *traceScan) endField() {
	if len(t.field) == 0 {
		return
	}
	t.hops++
	if bytes.Contains(bytes.ToLower(t.field), t.mark) {
		t.own++
	}
	t.field = t.field[:0]
}

// end tells that the message is complete: a message may lack a body.
func (t *traceScan) end() {
	if t.done {
		return
	}
	if len(t.line) > 0 {
		t.endLine()
	}
	t.endField()
	t.done = true
}
