package smtp

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"strings"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// describeTLS returns the envelope's words for a connection's protection.
func describeTLS(state *tls.ConnectionState) string {
	if state == nil {
		return ""
	}
	return strings.ReplaceAll(tls.VersionName(state.Version), " ", "") + " " + tls.CipherSuiteName(state.CipherSuite)
}

// intake takes the bytes of a message on their way into the draft. It never
// fails: what goes wrong is remembered, and the rest of the message is swallowed
// so that the client gets its answer where it expects one.
type intake struct {
	draft Draft
	trace *traceScan
	err   error
	bytes int64
}

func (i *intake) Write(p []byte) (int, error) {
	i.bytes += int64(len(p))
	if i.err == nil {
		i.trace.scan(p)
		_, i.err = i.draft.Write(p)
	}
	return len(p), nil
}

// Data takes the message. Its answer is 250 only after Commit returned nil.
func (s *session) Data(r io.Reader) error {
	if !s.tx.hasRecipients() {
		return &gosmtp.SMTPError{Code: 503, EnhancedCode: code(5, 5, 1), Message: errNoRecipients.Error()}
	}
	tx := s.tx
	s.tx = nil
	env := tx.env
	env.Received = time.Now().UTC()

	draft, err := s.front.deps.Queue.Create(s.ctx, tx.hint)
	if err != nil {
		return s.refuseData(r, env, storage(err))
	}
	defer draft.Discard()
	env.ID = draft.ID()

	in := &intake{draft: draft, trace: newTraceScan(s.front.mark)}
	if _, err := io.Copy(in, r); err != nil {
		// The server knows what the client did wrong and answers it.
		s.count("broken")
		return err
	}
	in.trace.end()
	if in.err != nil {
		return s.refuseData(nil, env, storage(in.err))
	}
	if refused := s.loops(tx.policy, in.trace); refused != nil {
		return s.refuseData(nil, env, *refused)
	}
	from := s.client()
	env.Client = s.origin(from)
	header, refused := s.filter(tx.policy, env, draft)
	if refused != nil {
		return s.refuseData(nil, env, *refused)
	}
	if env.Verdict != nil && len(env.Verdict.Edits) > 0 {
		edited, err := s.edit(env, draft)
		if err != nil {
			return s.refuseData(nil, env, storage(err))
		}
		defer edited.Discard()
		draft = edited
	}
	// The connection's end must not tear a message that is being made durable.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), tx.policy.cfg.CommitTimeout)
	defer cancel()
	if err := draft.Commit(ctx, env, []byte(received(s.front.deps.Hostname, from, env)+header)); err != nil {
		return s.refuseData(nil, env, storage(err))
	}
	s.taken++
	s.front.metrics.bytes.Add(float64(in.bytes))
	if env.Verdict != nil && env.Verdict.Action == Quarantine {
		s.count("quarantined")
	} else {
		s.count("accepted")
	}
	return &gosmtp.SMTPError{Code: 250, EnhancedCode: code(2, 0, 0), Message: "queued as " + env.ID}
}

// loops refuses a message that goes round in circles (RFC 5321, section 6.3).
// The other understudy is told to keep it: who is active may change in a moment.
func (s *session) loops(p *policy, t *traceScan) *refusal {
	if t.hops <= p.cfg.MaxHops && t.own <= p.cfg.MaxOwnHops {
		return nil
	}
	reason := "Too many hops"
	if t.own > p.cfg.MaxOwnHops {
		reason = "Message loops: it has passed this host before"
	}
	if s.peer {
		return &refusal{code: 451, enhanced: code(4, 4, 6), reason: reason}
	}
	return &refusal{code: 554, enhanced: code(5, 4, 6), reason: reason}
}

// filter asks the filter and returns the header lines it wants.
func (s *session) filter(p *policy, env *Envelope, draft Draft) (header string, refused *refusal) {
	if s.front.deps.Filter == nil {
		return "", nil
	}
	body, err := draft.Open()
	if err != nil {
		t := storage(err)
		return "", &t
	}
	ctx, cancel := context.WithTimeout(s.ctx, p.cfg.FilterTimeout)
	defer cancel()
	began := time.Now()
	v, err := s.front.deps.Filter.Check(ctx, env, body)
	s.front.metrics.filter.Observe(time.Since(began).Seconds())
	if err != nil {
		return "", &refusal{
			code: 451, enhanced: code(4, 7, 1),
			reason: "The content of the message cannot be checked now, please try later", cause: err,
		}
	}
	env.Verdict = &v
	switch v.Action {
	case Reject:
		return "", verdictRefusal(v, 554, "Message rejected by content filter")
	case Defer:
		return "", verdictRefusal(v, 451, "Message deferred by content filter, please try later")
	case Accept, Quarantine:
	}
	header, ok := cleanHeader(v.Header)
	if !ok {
		s.log.Warn("filter gave a malformed header", "queue_id", env.ID, "engine", v.Engine)
	}
	return header, nil
}

// renewer is a Draft that can begin again under the same id.
type renewer interface {
	// Renew starts an empty draft with the id of this one, which may no longer be
	// committed. It returns ErrFull as Queue.Create does.
	Renew(ctx context.Context, sizeHint int64) (Draft, error)
}

// edit returns a draft of the message with the verdict's edits made. The first
// draft is discarded.
func (s *session) edit(env *Envelope, first Draft) (second Draft, err error) {
	defer first.Discard()
	body, err := first.Open()
	if err != nil {
		return nil, err
	}
	size, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if r, ok := first.(renewer); ok {
		second, err = r.Renew(s.ctx, size)
	} else {
		second, err = s.front.deps.Queue.Create(s.ctx, size)
	}
	if err != nil {
		return nil, err
	}
	if err := WriteEdited(second, body, env.Verdict.Edits); err != nil {
		second.Discard()
		return nil, err
	}
	if id := second.ID(); id != env.ID {
		s.log.Info("message edited", "queue_id", id, "first_queue_id", env.ID)
		env.ID = id
	}
	return second, nil
}

// verdictRefusal uses the verdict's own reply as far as it fits its action: a
// 5xx never becomes of a Defer, nor a 4xx of a Reject.
func verdictRefusal(v Verdict, fallback int, text string) *refusal {
	class := fallback / 100
	r := &refusal{code: fallback, enhanced: code(class, 7, 1), reason: text}
	if v.Code/100 == class {
		r.code = v.Code
	}
	if e, ok := parseEnhanced(v.Enhanced); ok && e[0] == class {
		r.enhanced = e
	}
	if t := strings.TrimSpace(safeText(v.Text)); t != "" {
		r.reason = t
	}
	return r
}

// parseEnhanced reads "5.7.1" (RFC 3463, section 2).
func parseEnhanced(s string) (e gosmtp.EnhancedCode, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) != len(e) {
		return e, false
	}
	for i, p := range parts {
		if p == "" || len(p) > 3 {
			return e, false
		}
		for _, c := range p {
			if c < '0' || c > '9' {
				return e, false
			}
			e[i] = e[i]*10 + int(c-'0')
		}
	}
	return e, true
}

// cleanHeader lets only whole header lines through: an empty line would turn the
// header of the message into its body. It says whether nothing was left out.
func cleanHeader(h string) (string, bool) {
	if h == "" {
		return "", true
	}
	ok := strings.HasSuffix(h, "\r\n")
	var b strings.Builder
	inField := false
	for line := range strings.Lines(h) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.ContainsAny(line, "\r\x00") || strings.TrimSpace(line) == "":
			ok = false
			continue
		case line[0] == ' ' || line[0] == '\t':
			if !inField {
				ok = false
				continue
			}
		default:
			name, _, found := strings.Cut(line, ":")
			if inField = found && isFieldName(name); !inField {
				ok = false
				continue
			}
		}
		b.WriteString(line)
		b.WriteString("\r\n")
	}
	return b.String(), ok
}

// isFieldName follows RFC 5322, section 2.2.
func isFieldName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// refuseData refuses a message at its end. A reader that has not been read to
// the end is drained first; if that fails, the server answers the failure.
func (s *session) refuseData(rest io.Reader, env *Envelope, r refusal) error {
	if rest != nil {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			s.count("broken")
			return err
		}
	}
	r.from, r.id = env.Sender, env.ID
	if len(env.Recipients) == 1 {
		r.to = env.Recipients[0].Address
	}
	switch {
	case r.code == 452:
		s.count("full")
	case r.enhanced[1] == 4 && r.enhanced[2] == 6:
		s.count("looped")
	case r.cause != nil:
		s.count("failed")
	case r.code/100 == 5:
		s.count("rejected")
	default:
		s.count("deferred")
	}
	return s.refuse(stageData, r)
}

func (s *session) count(outcome string) {
	s.front.metrics.messages.WithLabelValues(outcome).Inc()
	s.log.LogAttrs(s.ctx, slog.LevelDebug, "message", slog.String("outcome", outcome))
}
