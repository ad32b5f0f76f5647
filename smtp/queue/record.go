package queue

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unique"

	"understudy/smtp"
)

// The kinds of records in the log.
const (
	// kindMessage: a message with its envelope and state; DESIGN.md has the form.
	kindMessage byte = 'M'
	// kindState: new states of messages.
	kindState byte = 'S'
	// kindRemoved: messages that have left the queue.
	kindRemoved byte = 'R'
	// kindRules: the hold rules.
	kindRules byte = 'H'
	// kindMark: a checkpoint begins.
	kindMark byte = 'C'
)

// Bounds of what is believed when it is read.
const (
	maxRecipients = 1 << 20
	maxEnvelope   = 256 << 20
)

var errFormat = errors.New("malformed record")

const (
	recordVersion = 1

	// flagSpill: the body is in a spill file.
	flagSpill byte = 1
)

// prefixBytes is the length of the fixed part of a message record: version, flags,
// id, lengths of state, envelope and inline bytes, then name, size and CRC-32C of
// the spill file.
const prefixBytes = 1 + 1 + 16 + 4 + 4 + 8 + 16 + 8 + 4

// prefix is the fixed part of a message record.
type prefix struct {
	flags           byte
	id              ident
	state, envelope uint32
	inline          uint64
	spill           spill
}

func (p *prefix) total() int64 {
	return prefixBytes + int64(p.state) + int64(p.envelope) + int64(p.inline)
}

func appendPrefix(b []byte, p *prefix) []byte {
	b = append(b, recordVersion, p.flags)
	b = append(b, p.id[:]...)
	b = binary.LittleEndian.AppendUint32(b, p.state)
	b = binary.LittleEndian.AppendUint32(b, p.envelope)
	b = binary.LittleEndian.AppendUint64(b, p.inline)
	b = append(b, p.spill.name[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.spill.size))
	return binary.LittleEndian.AppendUint32(b, p.spill.crc)
}

// parsePrefix reads the fixed part of a record of total bytes.
func parsePrefix(b []byte, total int64) (prefix, error) {
	var p prefix
	if len(b) < prefixBytes || b[0] != recordVersion || b[1]&^flagSpill != 0 {
		return p, errFormat
	}
	p.flags = b[1]
	copy(p.id[:], b[2:18])
	p.state = binary.LittleEndian.Uint32(b[18:])
	p.envelope = binary.LittleEndian.Uint32(b[22:])
	p.inline = binary.LittleEndian.Uint64(b[26:])
	copy(p.spill.name[:], b[34:50])
	size := binary.LittleEndian.Uint64(b[50:])
	p.spill.crc = binary.LittleEndian.Uint32(b[58:])
	if p.inline > math.MaxInt64/4 || size > math.MaxInt64/4 || p.total() != total || p.envelope > maxEnvelope {
		return p, errFormat
	}
	p.spill.size = int64(size)
	if p.flags&flagSpill == 0 && p.spill != (spill{}) {
		return p, errFormat
	}
	return p, nil
}

// parts cuts a whole message record.
func parts(payload []byte) (p prefix, state, envelope, inline []byte, err error) {
	p, err = parsePrefix(payload, int64(len(payload)))
	if err != nil {
		return p, nil, nil, nil, err
	}
	rest := payload[prefixBytes:]
	state, rest = rest[:p.state], rest[p.state:]
	return p, state, rest[:p.envelope], rest[p.envelope:], nil
}

// decodeMessage makes the message of a record, and the name of its route; its
// position is the caller's.
func decodeMessage(payload []byte, c clock, limit time.Duration) (m *message, route string, p prefix, err error) {
	p, state, envelope, inline, err := parts(payload)
	if err != nil {
		return nil, "", p, err
	}
	var env smtp.Envelope
	if err := json.Unmarshal(envelope, &env); err != nil {
		return nil, "", p, fmt.Errorf("%w: envelope: %w", errFormat, err)
	}
	m, route = newMessage(p.id, &env, 0), env.Route
	if p.flags&flagSpill != 0 {
		m.spill = &spill{p.spill.name, p.spill.size, p.spill.crc}
	}
	if m.size != int64(len(inline))+p.spill.size {
		return nil, "", p, fmt.Errorf("%w: %d bytes where the envelope says %d", errFormat, int64(len(inline))+p.spill.size, m.size)
	}
	if len(state) > 0 {
		if route, err = m.decodeState(state, c, limit); err != nil {
			return nil, "", p, err
		}
	}
	return m, route, p, nil
}

// appendState appends a snapshot of the durable state. Instants become wall times.
func (m *message) appendState(b []byte, c clock) []byte {
	b = append(b, recordVersion, byte(m.phase), byte(m.cause))
	b = binary.AppendUvarint(b, m.gen)
	b = binary.AppendVarint(b, m.since)
	b = appendString(b, m.reason)
	if m.route != nil {
		b = appendString(b, m.route.name)
	} else {
		b = appendString(b, "")
	}
	var table answers
	for i := range m.rcpts {
		table.number(m.rcpts[i].last)
	}
	for i := range m.history {
		table.number(m.history[i].reply)
	}
	b = binary.AppendUvarint(b, uint64(len(table.list)))
	for _, h := range table.list {
		r := h.Value()
		b = binary.AppendUvarint(b, uint64(r.code))
		b = appendString(appendString(appendString(appendString(b, r.enhanced), r.text), r.relay), r.tls)
	}
	now, wall := c.now(), time.Now().UnixNano()
	b = binary.AppendUvarint(b, uint64(len(m.rcpts)))
	for i := range m.rcpts {
		r := &m.rcpts[i]
		b = append(b, byte(r.outcome))
		b = binary.AppendUvarint(b, uint64(r.attempts))
		b = binary.AppendUvarint(b, table.number(r.last))
		b = binary.AppendVarint(b, r.at)
		next := int64(0)
		if r.next > now {
			next = wall + (r.next - now)
		}
		b = binary.AppendVarint(b, next)
	}
	b = binary.AppendUvarint(b, uint64(len(m.history)))
	for i := range m.history {
		h := &m.history[i]
		b = append(b, byte(h.outcome))
		b = binary.AppendUvarint(b, uint64(h.rcpt))
		b = binary.AppendUvarint(b, table.number(h.reply))
		b = binary.AppendVarint(b, h.at)
	}
	return b
}

// answers numbers the answers of a message from 1; 0 is "none".
type answers struct {
	list  []unique.Handle[reply]
	index map[unique.Handle[reply]]int // only where there are many
}

func (a *answers) number(h unique.Handle[reply]) uint64 {
	if h == (unique.Handle[reply]{}) {
		return 0
	}
	if a.index == nil {
		for i := range a.list {
			if a.list[i] == h {
				return uint64(i + 1)
			}
		}
	} else if i := a.index[h]; i != 0 {
		return uint64(i)
	}
	a.list = append(a.list, h)
	switch {
	case a.index != nil:
		a.index[h] = len(a.list)
	case len(a.list) == 16:
		a.index = make(map[unique.Handle[reply]]int)
		for i, h := range a.list {
			a.index[h] = i + 1
		}
	}
	return uint64(len(a.list))
}

// decodeState replaces the durable state of m by a snapshot, and returns the name
// of its route. On an error m is unchanged.
func (m *message) decodeState(b []byte, c clock, limit time.Duration) (route string, err error) {
	r := reader{b: b}
	if r.byte() != recordVersion {
		return "", errFormat
	}
	n := message{phase: phase(r.byte()), cause: cause(r.byte())}
	gen := r.uvarint()
	n.since = r.varint()
	n.reason = r.string()
	name := r.string()
	table := make([]unique.Handle[reply], 1, 4)
	for range r.count(5) {
		v := reply{code: int(r.uvarint())}
		v.enhanced, v.text, v.relay, v.tls = r.string(), r.string(), r.string(), r.string()
		table = append(table, unique.Make(v))
	}
	answer := func() unique.Handle[reply] {
		i := r.uvarint()
		if i >= uint64(len(table)) {
			r.bad = true
			return table[0]
		}
		return table[i]
	}
	if count := r.count(5); r.bad || count != len(m.rcpts) {
		return "", errFormat
	}
	n.rcpts = make([]rcpt, len(m.rcpts))
	for i := range n.rcpts {
		x := rcpt{addr: m.rcpts[i].addr, outcome: smtp.Outcome(r.byte()), attempts: uint32(r.uvarint())}
		x.last, x.at = answer(), r.varint()
		x.next = c.instant(r.varint(), limit)
		r.bad = r.bad || x.outcome > smtp.Refused
		n.rcpts[i] = x
	}
	history := r.count(4)
	if history > 0 {
		n.history = make([]attempt, 0, min(history, maxHistory))
	}
	for range history {
		h := attempt{outcome: smtp.Outcome(r.byte()), rcpt: uint32(r.uvarint()), reply: answer(), at: r.varint()}
		if r.bad || h.outcome > smtp.Refused || len(n.history) == maxHistory || h.reply == table[0] {
			return "", errFormat
		}
		n.history = append(n.history, h)
	}
	if r.bad || len(r.b) > 0 || n.phase >= phaseEnd || n.cause >= causeEnd {
		return "", errFormat
	}
	m.phase, m.cause, m.gen, m.since, m.reason = n.phase, n.cause, gen, n.since, n.reason
	m.rcpts, m.history = n.rcpts, n.history
	m.next = 0
	m.due()
	return name, nil
}

// appendStates appends one message to the payload of a kindState record.
func appendStates(b []byte, m *message, c clock) []byte {
	b = append(b, m.id[:]...)
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = m.appendState(b, c)
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// eachState calls fn for each snapshot in the payload of a kindState record.
func eachState(b []byte, fn func(id ident, state []byte) error) error {
	for len(b) > 0 {
		if len(b) < 20 {
			return errFormat
		}
		var id ident
		copy(id[:], b)
		n := binary.LittleEndian.Uint32(b[16:])
		b = b[20:]
		if uint64(n) > uint64(len(b)) {
			return errFormat
		}
		if err := fn(id, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// tombstoneBytes is one entry of a kindRemoved record: id, generation and time.
const tombstoneBytes = 16 + 8 + 8

func appendTombstone(b []byte, id ident, gen uint64, at time.Time) []byte {
	b = append(b, id[:]...)
	b = binary.LittleEndian.AppendUint64(b, gen)
	return binary.LittleEndian.AppendUint64(b, uint64(at.UnixNano()))
}

func eachTombstone(b []byte, fn func(id ident, gen uint64, at time.Time)) error {
	if len(b)%tombstoneBytes != 0 {
		return errFormat
	}
	for ; len(b) > 0; b = b[tombstoneBytes:] {
		var id ident
		copy(id[:], b)
		fn(id, binary.LittleEndian.Uint64(b[16:]), time.Unix(0, int64(binary.LittleEndian.Uint64(b[24:]))))
	}
	return nil
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// reader reads what the functions above wrote; bad sticks.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	v := string(r.b[:n])
	r.b = r.b[n:]
	return v
}

// count reads a number of things of at least each bytes.
func (r *reader) count(each int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/each) || n > maxRecipients {
		r.bad, r.b = true, nil
		return 0
	}
	return int(n)
}
