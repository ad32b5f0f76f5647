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
	body, err := s.read(ctx, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	env, err := s.readEnvelope(m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if m.gone {
		s.mu.Unlock()
		return ErrNotFound
	}
	sum := m.summary(s.clock, "")
	x := Exported{
		Version: exportVersion, Envelope: env, State: sum.State, Reason: sum.Reason, To: sum.NextHop,
		Recipients: sum.Recipients, History: m.attempts(),
	}
	s.mu.Unlock()
	if x.State == Active {
		x.State = Queued
	}
	text, err := json.MarshalIndent(x, "", "  ")
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

// Import queues the messages of an exported stream, with their state. An id is
// kept unless it is taken; a message that has been in the queue under another id
// is queued twice. Change lists the ids they have now, also after an error.
func (s *Spool) Import(ctx context.Context, r io.Reader) (Change, error) {
	change := Change{IDs: []string{}}
	in := tar.NewReader(r)
	var x *Exported
	for {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return change, fmt.Errorf("import: %w", err)
		}
		name, kind := strings.TrimSuffix(path.Base(head.Name), path.Ext(head.Name)), path.Ext(head.Name)
		switch {
		case head.Typeflag != tar.TypeReg:
			return change, fmt.Errorf("import: %s is not a regular file", head.Name)
		case kind == ".json":
			if x, err = readExported(in, head.Size); err != nil {
				return change, fmt.Errorf("import %s: %w", head.Name, err)
			}
		case kind == ".eml" && x != nil && x.Envelope.ID == name:
			id, err := s.importOne(ctx, x, in, head.Size)
			if err != nil {
				return change, fmt.Errorf("import %s: %w", head.Name, err)
			}
			change.done(id)
			x = nil
		default:
			return change, fmt.Errorf("import: %s: every ID.json must be followed by its ID.eml", head.Name)
		}
	}
	if x != nil {
		return change, fmt.Errorf("import: %s.json without its message", x.Envelope.ID)
	}
	s.logger.Info("messages imported by an operator", "messages", change.Count)
	return change, nil
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

func (s *Spool) importOne(ctx context.Context, x *Exported, r io.Reader, size int64) (string, error) {
	if size != x.Envelope.SizeBytes {
		return "", fmt.Errorf("%d bytes, the envelope says %d", size, x.Envelope.SizeBytes)
	}
	in, err := s.Create(ctx, size)
	if err != nil {
		return "", err
	}
	defer in.Discard()
	if _, err := io.Copy(in, r); err != nil {
		return "", err
	}
	d, ok := in.(*draft)
	if !ok {
		return "", errors.New("draft of another queue")
	}
	if id, ok := parseIdent(x.Envelope.ID); ok {
		s.mu.Lock()
		taken := s.messages[id] != nil
		s.mu.Unlock()
		if !taken {
			d.id, d.text = id, id.String()
		}
	}
	if err := d.commit(ctx, x.Envelope, nil, func(m *message) string { return s.restore(m, x) }); err != nil {
		return "", err
	}
	return d.text, nil
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
