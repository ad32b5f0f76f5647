package daemon

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// mailHandler is a slog.Handler that writes what mail administrators' tools
// read: lines in Postfix's form, with its names for the facts.
//
//	understudy/relay[71]: 0G5A..: from=<a@x>, to=<b@y>, relay=mx1[192.0.2.1]:25, delay=0.4, dsn=2.0.0, status=sent (250 2.0.0 Ok)
//	understudy/smtpd[71]: NOQUEUE: reject: RCPT from unknown[192.0.2.9]: 550 5.1.1 <x@y>: Recipient address rejected; from=<a@x> to=<x@y> proto=ESMTP helo=<h>
//	understudy/daemon[71]: warning: clock jumped: by=1h0m0s
//
// The messages "delivery", "queued", "removed" and "reject" have these forms;
// all others are written as text with their attributes.
type mailHandler struct {
	out    *lockedWriter
	level  slog.Leveler
	stamp  bool // whether lines begin with time and host, as in a syslog file
	host   string
	pid    string
	attrs  []slog.Attr
	prefix string // open groups, each ended by a dot
}

// lockedWriter writes whole lines; it is shared by all handlers of one logger.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// newMailHandler writes to w. stamp adds "Nov 24 13:40:00 host " in front, for
// files; the journal and syslog add their own.
func newMailHandler(w io.Writer, level slog.Leveler, stamp bool) *mailHandler {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	host, _, _ = strings.Cut(host, ".")
	return &mailHandler{out: &lockedWriter{w: w}, level: level, stamp: stamp, host: host, pid: strconv.Itoa(os.Getpid())}
}

// Enabled implements slog.Handler.
func (h *mailHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs implements slog.Handler.
func (h *mailHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		a.Key = h.prefix + a.Key
		n.attrs = append(n.attrs, a)
	}
	return &n
}

// WithGroup implements slog.Handler.
func (h *mailHandler) WithGroup(name string) slog.Handler {
	n := *h
	n.prefix += name + "."
	return &n
}

// Handle implements slog.Handler.
func (h *mailHandler) Handle(_ context.Context, r slog.Record) error {
	f := make(fields, 0, len(h.attrs)+r.NumAttrs())
	for _, a := range h.attrs {
		f = f.with("", a)
	}
	r.Attrs(func(a slog.Attr) bool { f = f.with(h.prefix, a); return true })

	var b bytes.Buffer
	if h.stamp {
		b.WriteString(r.Time.Format(time.Stamp))
		b.WriteByte(' ')
		b.WriteString(h.host)
		b.WriteByte(' ')
	}
	part, text := render(r.Level, r.Message, f)
	b.WriteString("understudy/")
	b.WriteString(part)
	b.WriteByte('[')
	b.WriteString(h.pid)
	b.WriteString("]: ")
	b.WriteString(oneLine(text))
	b.WriteByte('\n')

	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(b.Bytes())
	return err
}

// fields are the attributes of one record, in order.
type fields []field

type field struct{ key, value string }

// with adds an attribute, a group's members one by one.
func (f fields) with(prefix string, a slog.Attr) fields {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		return append(f, field{prefix + a.Key, v.String()})
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, g := range v.Group() {
		f = f.with(prefix, g)
	}
	return f
}

func (f fields) get(key string) string {
	for _, a := range slices.Backward(f) {
		if a.key == key {
			return a.value
		}
	}
	return ""
}

// render chooses the form of a record: the part of the daemon it is filed
// under, and the text behind the colon.
func render(level slog.Level, msg string, f fields) (part, text string) {
	switch msg {
	case "delivery":
		return "relay", delivery(f)
	case "queued":
		return "queue", f.get("queue_id") + ": from=<" + f.get("from") + ">, size=" + f.get("size") + ", nrcpt=" + f.get("nrcpt") + " (queue active)"
	case "removed":
		return "queue", f.get("queue_id") + ": removed"
	case "reject":
		return "smtpd", rejection(f)
	}
	return "daemon", plain(level, msg, f)
}

// delivery is Postfix's line for one recipient, with the sender in front.
func delivery(f fields) string {
	var b strings.Builder
	b.WriteString(f.get("queue_id") + ": from=<" + f.get("from") + ">, to=<" + f.get("to") + ">")
	for _, key := range []string{"relay", "delay", "delays", "dsn", "status"} {
		if v := f.get(key); v != "" {
			b.WriteString(", " + key + "=" + v)
		}
	}
	if reply := f.get("reply"); reply != "" {
		b.WriteString(" (" + reply + ")")
	}
	return b.String()
}

// rejection is Postfix's line for what was refused in the session; filters of
// fail2ban for Postfix match it.
func rejection(f fields) string {
	client := f.get("client")
	if client == "" {
		client = "unknown"
	}
	id := f.get("queue_id")
	if id == "" {
		id = "NOQUEUE"
	}
	text := id + ": reject: " + f.get("stage") + " from " + client + "[" + f.get("addr") + "]: " + f.get("code") + " " + f.get("enhanced") + " "
	if to := f.get("to"); to != "" {
		text += "<" + to + ">: "
	}
	text += f.get("reason") + "; from=<" + f.get("from") + ">"
	if to := f.get("to"); to != "" {
		text += " to=<" + to + ">"
	}
	return text + " proto=" + f.get("proto") + " helo=<" + f.get("helo") + ">"
}

// plain is any other record.
func plain(level slog.Level, msg string, f fields) string {
	var b strings.Builder
	switch {
	case level >= slog.LevelError:
		b.WriteString("error: ")
	case level >= slog.LevelWarn:
		b.WriteString("warning: ")
	case level < slog.LevelInfo:
		b.WriteString("debug: ")
	}
	b.WriteString(msg)
	for i, a := range f {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString(a.key + "=" + quoteIfNeeded(a.value))
	}
	return b.String()
}

// quoteIfNeeded quotes values in which a reader could not see where they end.
func quoteIfNeeded(v string) string {
	if v == "" || strings.ContainsAny(v, " ,=\"") {
		return strconv.Quote(v)
	}
	return v
}

// oneLine replaces what could forge a line or speak to a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, s)
}

var _ slog.Handler = (*mailHandler)(nil)
