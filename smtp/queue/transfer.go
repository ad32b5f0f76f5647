package queue

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"time"
	"unique"

	"understudy/smtp"
)

// Exported is the JSON half of an exported message; the other half is its bytes.
type Exported struct {
	// Version is 1.
	Version  int            `json:"version"`
	Envelope *smtp.Envelope `json:"envelope"`
	// State is queued, held or refused.
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"`
	// To is the next hop it was requeued to; empty is where the view points.
	To         string            `json:"to,omitempty"`
	Recipients []RecipientStatus `json:"recipients"`
	History    []Attempt         `json:"history,omitempty"`
}

const (
	exportVersion = 1
	// maxExportJSON bounds the JSON of one message on import, in bytes.
	maxExportJSON = 64 << 20
)

// Export writes the selected messages as a tar stream: for each ID.json (Exported)
// and ID.eml (its bytes). It returns how many. A message that leaves the queue
// meanwhile is left out; one that cannot be read ends the export with an error.
func (s *Spool) Export(ctx context.Context, w io.Writer, sel Selection) (int, error) {
	out := tar.NewWriter(w)
	n := 0
	for _, m := range s.find(sel) {
		err := s.exportOne(ctx, out, m)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("export %s: %w", m.id, err)
		}
		n++
	}
	if err := out.Close(); err != nil {
		return n, fmt.Errorf("export: %w", err)
	}
	if n > 0 {
		s.logger.Info("messages exported by an operator", "messages", n)
	}
	return n, nil
}

func (s *Spool) exportOne(ctx context.Context, out *tar.Writer, m *message) (err error) {
	payload, err := s.payload(ctx, m)
	if err != nil {
		return err
	}
	_, _, envelope, _, err := parts(payload)
	if err != nil {
		return err
	}
	body, err := s.openBody(m, payload)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	s.mu.Lock()
	if m.gone {
		s.mu.Unlock()
		return ErrNotFound
	}
	sum := m.summary(s.clock, "")
	x := Exported{
		Version: exportVersion, State: sum.State, Reason: sum.Reason, To: sum.NextHop,
		Recipients: sum.Recipients, History: m.attempts(),
	}
	s.mu.Unlock()
	if x.State == Active {
		x.State = Queued
	}
	// The envelope goes out as it is stored.
	text, err := json.Marshal(struct {
		Exported
		Envelope json.RawMessage `json:"envelope"`
	}{x, envelope})
	if err != nil {
		return err
	}
	head := func(name string, size int64) error {
		return out.WriteHeader(&tar.Header{
			Name: sum.ID + name, Size: size, Mode: 0o600, ModTime: sum.Received, Format: tar.FormatPAX, Typeflag: tar.TypeReg,
		})
	}
	if err := head(".json", int64(len(text))); err != nil {
		return err
	}
	if _, err := out.Write(text); err != nil {
		return err
	}
	if err := head(".eml", m.size); err != nil {
		return err
	}
	_, err = io.Copy(out, body)
	return err
}

// importWidth is how many messages of an import wait for the disk at once.
const importWidth = 64

// Import queues the messages of an exported stream, with their state. An id is
// kept unless it is taken; a message that is in the queue already is queued once
// more. Change lists the ids they have now, in the order of the stream, also after
// an error.
func (s *Spool) Import(ctx context.Context, r io.Reader) (Change, error) {
	in := &importer{s: s, tape: tar.NewReader(r), slots: make(chan struct{}, importWidth)}
	err := in.run(ctx)
	in.wg.Wait()
	err = errors.Join(err, in.err)
	change := Change{IDs: []string{}}
	for _, id := range in.ids {
		if id != "" {
			change.done(id)
		}
	}
	s.logger.Info("messages imported by an operator", "messages", change.Count)
	return change, err
}

// importer reads a stream in order and stores its messages side by side, so that
// they share syncs.
type importer struct {
	s     *Spool
	tape  *tar.Reader
	slots chan struct{}
	wg    sync.WaitGroup

	mu  sync.Mutex
	ids []string // by position in the stream; empty until stored
	err error
}

func (in *importer) run(ctx context.Context) error {
	var x *Exported
	for {
		head, err := in.tape.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		if in.failed() {
			return nil
		}
		name, kind := strings.TrimSuffix(path.Base(head.Name), path.Ext(head.Name)), path.Ext(head.Name)
		switch {
		case head.Typeflag != tar.TypeReg:
			return fmt.Errorf("import: %s is not a regular file", head.Name)
		case kind == ".json" && x == nil:
			if x, err = readExported(in.tape, head.Size); err != nil {
				return fmt.Errorf("import %s: %w", head.Name, err)
			}
		case kind == ".eml" && x != nil && x.Envelope.ID == name:
			if err := in.one(ctx, x, head.Size); err != nil {
				return fmt.Errorf("import %s: %w", head.Name, err)
			}
			x = nil
		default:
			return fmt.Errorf("import: %s: every ID.json must be followed by its ID.eml", head.Name)
		}
	}
	if x != nil {
		return fmt.Errorf("import: %s.json without its message", x.Envelope.ID)
	}
	return nil
}

func (in *importer) failed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.err != nil
}

// one reads one message from the stream and has it stored.
func (in *importer) one(ctx context.Context, x *Exported, size int64) error {
	in.slots <- struct{}{}
	d, err := in.s.readImport(ctx, x, in.tape, size)
	if err != nil {
		<-in.slots
		return err
	}
	in.mu.Lock()
	at := len(in.ids)
	in.ids = append(in.ids, "")
	in.mu.Unlock()
	in.wg.Go(func() {
		defer func() { <-in.slots }()
		err := d.commit(ctx, x.Envelope, nil, func(m *message) string { return in.s.restore(m, x) })
		in.mu.Lock()
		defer in.mu.Unlock()
		if err != nil {
			in.err = errors.Join(in.err, fmt.Errorf("import %s: %w", d.text, err))
			return
		}
		in.ids[at] = d.text
	})
	return nil
}

func readExported(r io.Reader, size int64) (*Exported, error) {
	if size > maxExportJSON {
		return nil, fmt.Errorf("%d bytes of JSON, at most %d", size, maxExportJSON)
	}
	x := &Exported{}
	if err := json.NewDecoder(io.LimitReader(r, size)).Decode(x); err != nil {
		return nil, err
	}
	if x.Version != exportVersion || x.Envelope == nil || len(x.Envelope.Recipients) == 0 {
		return nil, fmt.Errorf("version %d, or no envelope with recipients", x.Version)
	}
	if len(x.Recipients) != len(x.Envelope.Recipients) || len(x.Recipients) > maxRecipients {
		return nil, errors.New("recipients and envelope do not agree")
	}
	return x, nil
}

// readImport makes a draft of an exported message.
func (s *Spool) readImport(ctx context.Context, x *Exported, r io.Reader, size int64) (*draft, error) {
	if size != x.Envelope.SizeBytes {
		return nil, fmt.Errorf("%d bytes, the envelope says %d", size, x.Envelope.SizeBytes)
	}
	d, err := s.create(ctx, size, s.idents.next(time.Now()))
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(d, r); err != nil {
		d.Discard()
		return nil, err
	}
	if id, ok := parseIdent(x.Envelope.ID); ok && s.reserve(id) {
		d.id, d.text, d.reserved = id, id.String(), true
	}
	return d, nil
}

// reserve takes an id for an import, where it is free, until the draft that has it
// ends.
func (s *Spool) reserve(id ident) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.messages[id] != nil || s.reserved[id] {
		return false
	}
	s.reserved[id] = true
	return true
}

// restore gives an imported message its state, and returns its route.
func (s *Spool) restore(m *message, x *Exported) string {
	// Above every generation of an earlier life under the same id.
	m.gen = uint64(time.Now().UnixNano())
	now := s.clock.now()
	for i := range x.Recipients {
		from, r := &x.Recipients[i], &m.rcpts[i]
		r.attempts = uint32(max(from.Attempts, 0))
		switch from.State {
		case RecipientDelivered:
			r.outcome = smtp.Delivered
		case RecipientRefused:
			r.outcome = smtp.Refused
		case RecipientPending:
			r.next = now
			if !from.NextAttempt.IsZero() {
				r.next = max(s.clock.instant(from.NextAttempt.UnixNano(), s.cfg.RetryMax), now)
			}
		}
		if !from.At.IsZero() {
			r.at = from.At.UnixNano()
			r.last = makeReply(smtp.Result{Code: from.Code, Enhanced: from.Enhanced, Text: from.Text, Relay: from.Relay})
		}
	}
	m.history = restoreHistory(x)
	switch x.State {
	case Held:
		m.phase, m.cause, m.reason = phaseHeld, causeOperator, x.Reason
	case Refused:
		m.phase, m.cause, m.reason = phaseRefused, causeNone, ""
	case Queued, Active:
	}
	if !m.due() && m.phase == phaseQueued {
		m.phase = phaseRefused
	}
	return x.To
}

func restoreHistory(x *Exported) []attempt {
	index := make(map[string]int, len(x.Envelope.Recipients))
	for i := range x.Envelope.Recipients {
		index[x.Envelope.Recipients[i].Address] = i
	}
	var out []attempt
	for _, h := range x.History[max(len(x.History)-maxHistory, 0):] {
		i, ok := index[h.Recipient]
		if !ok {
			continue
		}
		a := attempt{at: h.At.UnixNano(), rcpt: uint32(i), reply: makeReply(smtp.Result{
			Code: h.Code, Enhanced: h.Enhanced, Text: h.Text, Relay: h.Relay, TLS: h.TLS,
		})}
		switch h.Status {
		case statusWord(smtp.Delivered):
			a.outcome = smtp.Delivered
		case statusWord(smtp.Refused):
			a.outcome = smtp.Refused
		}
		if a.reply != (unique.Handle[reply]{}) {
			out = append(out, a)
		}
	}
	return out
}
