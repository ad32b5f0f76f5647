package dsn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"understudy/smtp"
	"understudy/smtp/auth"
	"understudy/smtp/queue"
)

// The reasons not to write.
var (
	// ErrUnauthenticated: nothing ties the message to its envelope sender. A
	// notification would go to whoever was forged.
	ErrUnauthenticated = errors.New("sender is not authenticated: no aligned SPF or DKIM pass")
	// ErrUnwanted: the null sender, or NOTIFY says no.
	ErrUnwanted = errors.New("sender wants no notification")
)

// Authenticator looks for evidence of the envelope sender; *auth.Verifier is one.
type Authenticator interface {
	// EnvelopeSender is as in auth.Verifier.
	EnvelopeSender(ctx context.Context, s auth.Sender, message io.Reader) (auth.Evidence, error)
}

// Writer writes notifications into the queue.
type Writer struct {
	// Hostname is the reporting MTA.
	Hostname string
	// Queue takes the notifications.
	Queue smtp.Queue
	// Auth decides to whom one may write.
	Auth Authenticator
	// Route is where notifications go: "" is the usual next hop, "mx" the MX hosts
	// of the sender's domain, anything else a next hop as a URL.
	Route string
}

var _ queue.Bouncer = (*Writer)(nil)

// Bounce implements queue.Bouncer. Besides the errors of the queue it returns
// ErrUnauthenticated; a sender who wants no notification is no error, the
// message may go.
func (w *Writer) Bounce(ctx context.Context, env *smtp.Envelope, recipients []queue.RecipientStatus, body io.Reader) error {
	err := w.notify(ctx, failed, env, recipients, time.Time{}, body)
	if errors.Is(err, ErrUnwanted) {
		return nil
	}
	return err
}

// Delay tells the sender that recipients wait. ErrUnwanted, ErrUnauthenticated.
func (w *Writer) Delay(ctx context.Context, env *smtp.Envelope, recipients []queue.RecipientStatus, until time.Time, body io.Reader) error {
	return w.notify(ctx, delayed, env, recipients, until, body)
}

func (w *Writer) notify(ctx context.Context, act action, env *smtp.Envelope, recipients []queue.RecipientStatus, until time.Time, body io.Reader) error {
	about := wanted(act, env, recipients)
	if env.Sender == "" || len(about) == 0 {
		return ErrUnwanted
	}
	// The body is read twice: for the signature, and for what goes back.
	original, err := io.ReadAll(io.LimitReader(body, maxBodyBytes+1))
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	checked := original
	if len(original) > maxBodyBytes {
		checked = nil // too big to verify here: only SPF can speak for it
	}
	ev, err := w.Auth.EnvelopeSender(ctx, auth.Sender{Addr: env.Client.Addr.Addr(), HELO: env.Client.HELO, MailFrom: env.Sender}, bytes.NewReader(checked))
	if err != nil {
		return fmt.Errorf("authenticate sender: %w", err)
	}
	if !ev.Pass() {
		return ErrUnauthenticated
	}
	return w.enqueue(ctx, act, env, about, until, original)
}

// maxBodyBytes bounds the message that is read into memory to verify its
// signature.
const maxBodyBytes = 64 << 20

// enqueue commits the notification.
func (w *Writer) enqueue(ctx context.Context, act action, env *smtp.Envelope, about []queue.RecipientStatus, until time.Time, original []byte) error {
	draft, err := w.Queue.Create(ctx, 0)
	if err != nil {
		return fmt.Errorf("queue notification: %w", err)
	}
	defer draft.Discard()
	now := time.Now()
	r := report{hostname: w.Hostname, id: draft.ID(), now: now, action: act, env: env, recipients: about, until: until}
	if err := r.write(draft, bytes.NewReader(original)); err != nil {
		return err
	}
	note := &smtp.Envelope{
		Received:   now,
		Client:     smtp.Client{HELO: w.Hostname, Protocol: "ESMTP"},
		Recipients: []smtp.Recipient{{Address: env.Sender, Notify: []string{"NEVER"}}},
		Body:       "8BITMIME",
		SMTPUTF8:   r.international(),
		Route:      w.route(env.Sender),
	}
	trace := fmt.Sprintf("Received: by %s (understudy)\r\n\tid %s; %s\r\n", w.Hostname, draft.ID(), now.Format(time.RFC1123Z))
	if err := draft.Commit(ctx, note, []byte(trace)); err != nil {
		return fmt.Errorf("queue notification: %w", err)
	}
	return nil
}

func (w *Writer) route(sender string) string {
	if w.Route == "mx" {
		return "mx://" + smtp.Domain(sender)
	}
	return w.Route
}

// wanted keeps the recipients that the notification may be about: those that
// failed or wait, and for which NOTIFY is absent or names the case.
func wanted(act action, env *smtp.Envelope, recipients []queue.RecipientStatus) []queue.RecipientStatus {
	keyword := "FAILURE"
	if act == delayed {
		keyword = "DELAY"
	}
	var out []queue.RecipientStatus
	for _, rc := range recipients {
		if rc.State == queue.RecipientDelivered {
			continue
		}
		i := slices.IndexFunc(env.Recipients, func(e smtp.Recipient) bool { return e.Address == rc.Address })
		if i >= 0 && len(env.Recipients[i].Notify) > 0 && !slices.Contains(env.Recipients[i].Notify, keyword) {
			continue
		}
		out = append(out, rc)
	}
	return out
}
