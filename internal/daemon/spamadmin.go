package daemon

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"understudy/internal/admin"
	"understudy/smtp"
	"understudy/spamsync"
	"understudy/spamsync/engine"
	"understudy/spamsync/learn"
	"understudy/spamsync/parity"
)

var _ admin.Spam = (*spam)(nil)

// spamAdmin is what operators see of the filter; nil where there is none.
func (d *Daemon) spamAdmin() admin.Spam {
	if d.spam == nil {
		return nil
	}
	return d.spam
}

// SpamStatus implements admin.Spam.
func (s *spam) SpamStatus(context.Context) (admin.SpamStatus, error) {
	out := admin.SpamStatus{Engine: s.cfg.Engine.Engine, OnFailure: s.cfg.Engine.OnFailure}
	if s.learn != nil {
		st := s.learn.Status()
		out.Learn = &st
	}
	if s.greylist != nil {
		out.Greylist = s.greylist.Local()
	}
	out.Replica = s.replicaStatus()
	if s.parity == nil {
		return out, nil
	}
	if last := s.parity.Last(); last != nil {
		out.Parity = &admin.SpamParity{At: last.At, Result: string(last.Report.Result), Summary: last.Report.Summary()}
		if last.Err != nil {
			out.Parity.Result, out.Parity.Summary = "failed", last.Err.Error()
		}
	}
	return out, nil
}

// Learn implements admin.Spam.
func (s *spam) Learn(ctx context.Context, class string, message io.Reader) (learn.Added, error) {
	if s.learn == nil {
		return "", admin.Conflict("nothing learns here: set spam.learn.engine")
	}
	c := spamsync.Ham
	if class == spamsync.Spam.String() {
		c = spamsync.Spam
	}
	return s.learn.Add(ctx, c, message)
}

// CheckSpam implements admin.Spam.
func (s *spam) CheckSpam(ctx context.Context, q admin.SpamQuestion, message []byte) (admin.SpamAnswer, error) {
	env := &smtp.Envelope{ID: "check", Sender: q.Sender, Client: smtp.Client{HELO: q.HELO, ReverseName: q.ReverseName}}
	if q.Client.IsValid() {
		env.Client.Addr = netip.AddrPortFrom(q.Client, 0)
	}
	for _, r := range q.Recipients {
		env.Recipients = append(env.Recipients, smtp.Recipient{Address: r})
	}
	switch {
	case s.explain != nil:
		m := parity.Message{Client: q.Client, HELO: q.HELO, ReverseName: q.ReverseName, Sender: q.Sender, Raw: message}
		if len(q.Recipients) > 0 {
			m.Recipient = q.Recipients[0]
		}
		j, err := s.explain.Judge(ctx, m)
		if err != nil {
			return admin.SpamAnswer{}, fmt.Errorf("judge message: %w", err)
		}
		return answerOf(j), nil
	case s.cfg.Engine.Engine == engine.Builtin:
		r, err := s.builtin.Explain(ctx, env, bytes.NewReader(message))
		if err != nil {
			return admin.SpamAnswer{}, err
		}
		out := answerTo(r.Verdict)
		out.Symbols = nil
		for _, f := range r.Findings {
			out.Symbols = append(out.Symbols, admin.SpamSymbol(f))
		}
		byWeight(out.Symbols)
		return out, nil
	}
	f := s.set.Engine()
	if f == nil {
		f = s.set.Filter() // ClamAV alone
	}
	v, err := f.Check(ctx, env, bytes.NewReader(message))
	if err != nil {
		return admin.SpamAnswer{}, fmt.Errorf("judge message: %w", err)
	}
	out := answerTo(v)
	out.Remembered = true
	return out, nil
}

// answerOf shows what Rspamd says.
func answerOf(j parity.Judgement) admin.SpamAnswer {
	out := admin.SpamAnswer{Engine: engine.Rspamd, Action: j.Action, Score: j.Score, Required: j.Required, Text: j.Text}
	for name, s := range j.Symbols {
		why := s.Description
		if len(s.Options) > 0 {
			why = strings.TrimSpace(why + " [" + strings.Join(s.Options, ", ") + "]")
		}
		out.Symbols = append(out.Symbols, admin.SpamSymbol{Name: name, Score: s.Score, Why: why})
	}
	byWeight(out.Symbols)
	return out
}

// answerTo shows a verdict.
func answerTo(v smtp.Verdict) admin.SpamAnswer {
	out := admin.SpamAnswer{Engine: v.Engine, Score: v.Score, Required: v.Required, Text: v.Text}
	switch v.Action {
	case smtp.Accept:
		out.Action = "accept"
		if v.Spam {
			out.Action = "add header"
		}
	case smtp.Quarantine:
		out.Action = "quarantine"
	case smtp.Defer:
		out.Action = "defer"
	case smtp.Reject:
		out.Action = "reject"
	}
	for _, s := range v.Symbols {
		out.Symbols = append(out.Symbols, admin.SpamSymbol{Name: s.Name, Score: s.Score})
	}
	byWeight(out.Symbols)
	return out
}

// byWeight puts what counts most first.
func byWeight(list []admin.SpamSymbol) {
	slices.SortFunc(list, func(a, b admin.SpamSymbol) int {
		return cmp.Or(cmp.Compare(max(b.Score, -b.Score), max(a.Score, -a.Score)), cmp.Compare(a.Name, b.Name))
	})
}

// parts has one line for every part that the status shows no more of.
func (d *Daemon) parts() map[string]string {
	out := map[string]string{}
	if d.spam != nil {
		out["Spam"] = d.spam.line()
	}
	if line := d.mailsync.line(); line != "" {
		out["Mailboxes"] = line
	}
	if d.link != nil {
		out["Peer"] = d.peerLine()
	}
	if d.tunnel != nil {
		out["Tunnel"] = d.tunnelLine()
	}
	return out
}

// line is what the status says about it.
func (s *spam) line() string {
	e := s.cfg.Engine
	text := e.Engine
	if len(e.Clamd.Address) > 0 {
		text += " and clamd"
	}
	if e.Engine != engine.Builtin {
		text += ", on failure " + e.OnFailure
	}
	if s.learn != nil {
		if st := s.learn.Status(); st.Waiting > 0 {
			text += fmt.Sprintf("; %d messages wait to be learned", st.Waiting)
		}
	}
	if s.parity != nil {
		if last := s.parity.Last(); last != nil && last.Err != nil {
			text += "; not compared with the other site"
		} else if last != nil {
			text += "; compared with the other site: " + string(last.Report.Result)
		}
	}
	return text
}
