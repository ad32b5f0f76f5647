package daemon

import (
	"context"
	"fmt"

	"understudy/internal/admin"
	"understudy/smtp"
	"understudy/smtp/queue"
	"understudy/smtp/recipients"
)

// learnRecipients tells the recipients whom the primary took mail for: the best
// positive answer there is, and it costs no question.
func (d *Daemon) learnRecipients(ctx context.Context) error {
	events, stop := d.spool.Subscribe(ctx)
	defer stop()
	for ev := range events {
		if ev.Kind == queue.EventDelivered && !d.isActive() {
			d.people.Accepted(ev.Recipient)
		}
	}
	return ctx.Err()
}

// auditLine is what the status says about audit mode; empty where it is off.
func auditLine(a *recipients.AuditStatus) string {
	if a == nil {
		return ""
	}
	return fmt.Sprintf("audit: nobody is refused; %d would have been; the primary agreed on %d, would have taken %d that we refuse, refused %d that we take, %d unanswered",
		a.Refused, a.Agree, a.TooStrict, a.TooLax, a.Unanswered)
}

// directory shows the recipients to operators.
type directory struct {
	d     *recipients.Directory
	front *smtp.Front
}

// Explain implements admin.Recipients.
func (r directory) Explain(ctx context.Context, address string) (admin.RecipientAnswer, error) {
	ex, err := r.d.Explain(ctx, address)
	if err != nil {
		return admin.RecipientAnswer{}, fmt.Errorf("recipient %q: %w", address, err)
	}
	out := admin.RecipientAnswer{
		Address: ex.Address, Disposition: ex.Answer, Reply: r.front.Answer(ctx, address),
		Reason: ex.Reason, Audit: ex.Audit,
	}
	for _, s := range ex.Sources {
		src := admin.RecipientSource{Name: s.Name, Answer: s.Answer, Detail: s.Detail, Loaded: s.AsOf, Stale: !s.Fresh}
		if s.Matched != "" {
			src.Detail = "matched " + s.Matched
		}
		out.Sources = append(out.Sources, src)
	}
	return out, nil
}

// Approve implements admin.Recipients.
func (r directory) Approve(_ context.Context, source string) error { return r.d.Approve(source) }

// sources shows the state of every recipients source.
func sources(st recipients.Status) []admin.RecipientSource {
	out := make([]admin.RecipientSource, 0, len(st.Sources))
	for _, s := range st.Sources {
		src := admin.RecipientSource{Name: s.Name, Entries: s.Entries, Loaded: s.AsOf, Stale: !s.Fresh, Error: s.Error}
		if s.Pending > 0 {
			src.Pending = fmt.Sprintf("%d entries wait for approval: %s", s.Pending, s.Reason)
		}
		out = append(out, src)
	}
	return out
}
