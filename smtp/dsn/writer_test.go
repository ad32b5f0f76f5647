package dsn

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message"

	"understudy/smtp"
	"understudy/smtp/auth"
	"understudy/smtp/queue"
	"understudy/smtp/queue/queuetest"
)

// verdict is an Authenticator with one answer.
type verdict struct {
	ev  auth.Evidence
	err error
}

func (v verdict) EnvelopeSender(context.Context, auth.Sender, io.Reader) (auth.Evidence, error) {
	return v.ev, v.err
}

var pass = verdict{ev: auth.Evidence{Method: "spf", Domain: "sender.example"}}

const original = "From: a@sender.example\r\nSubject: hello\r\n\r\nsecret body\r\n"

func envelope() *smtp.Envelope {
	return &smtp.Envelope{
		ID: "0AB", Received: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), Sender: "a@sender.example",
		Client:     smtp.Client{Addr: netip.MustParseAddrPort("192.0.2.1:25"), HELO: "h"},
		EnvelopeID: "QQ+3D1", SizeBytes: int64(len(original)),
		Recipients: []smtp.Recipient{
			{Address: "gone@demo.example", ORCPT: "rfc822;old+2Bname@demo.example"},
			{Address: "quiet@demo.example", Notify: []string{"NEVER"}},
			{Address: "there@demo.example"},
		},
	}
}

func statuses() []queue.RecipientStatus {
	at := time.Date(2026, 11, 24, 13, 0, 0, 0, time.UTC)
	return []queue.RecipientStatus{
		{Address: "gone@demo.example", State: queue.RecipientRefused, Code: 550, Enhanced: "5.1.1", Text: "no such\r\nX-Forged: user", Relay: "mx1.demo.example[192.0.2.9]:25", At: at},
		{Address: "quiet@demo.example", State: queue.RecipientRefused, Code: 550, Enhanced: "5.1.1", Text: "no such user", At: at},
		{Address: "there@demo.example", State: queue.RecipientDelivered, Code: 250, At: at},
	}
}

// parts reads a notification back.
func parts(t *testing.T, raw []byte) (header message.Header, types, bodies []string) {
	t.Helper()
	ent, err := message.Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	mr := ent.MultipartReader()
	if mr == nil {
		t.Fatalf("no multipart: %s", raw)
	}
	for {
		p, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			return ent.Header, types, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		ct, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		types, bodies = append(types, ct), append(bodies, string(b))
	}
}

func TestBounceIsAnRFC3464Report(t *testing.T) {
	t.Parallel()
	q := queuetest.New()
	w := &Writer{Hostname: "mx2.demo.example", Queue: q, Auth: pass, Route: "mx"}
	if err := w.Bounce(t.Context(), envelope(), statuses(), strings.NewReader(original)); err != nil {
		t.Fatal(err)
	}
	msgs := q.Messages()
	if len(msgs) != 1 || q.OpenDrafts() != 0 {
		t.Fatalf("%d notifications, %d drafts open", len(msgs), q.OpenDrafts())
	}
	env := msgs[0].Envelope
	if env.Sender != "" || len(env.Recipients) != 1 || env.Recipients[0].Address != "a@sender.example" || env.Route != "mx://sender.example" {
		t.Errorf("envelope %+v", env)
	}
	h, types, bodies := parts(t, msgs[0].Body)
	if got := h.Get("Auto-Submitted"); got != "auto-replied" {
		t.Errorf("Auto-Submitted %q", got)
	}
	if _, params, err := h.ContentType(); err != nil || params["report-type"] != "delivery-status" {
		t.Errorf("content type %v, %v", params, err)
	}
	if strings.Join(types, " ") != "text/plain message/delivery-status text/rfc822-headers" {
		t.Fatalf("parts %v", types)
	}
	status := bodies[1]
	for _, want := range []string{
		"Reporting-MTA: dns; mx2.demo.example\r\n",
		"Original-Envelope-Id: QQ=1\r\n",
		"Original-Recipient: rfc822;old+name@demo.example\r\n",
		"Final-Recipient: rfc822; gone@demo.example\r\n",
		"Action: failed\r\n", "Status: 5.1.1\r\n",
		"Remote-MTA: dns; mx1.demo.example\r\n",
		"Diagnostic-Code: smtp; 550 5.1.1 no such??X-Forged: user\r\n",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("status lacks %q:\n%s", want, status)
		}
	}
	if strings.Contains(status, "quiet@") || strings.Contains(status, "there@") {
		t.Errorf("status names a recipient it must not:\n%s", status)
	}
	if !strings.Contains(bodies[2], "Subject: hello") || strings.Contains(bodies[2], "secret") {
		t.Errorf("returned %q, want the header alone", bodies[2])
	}
}

func TestFullReturnAndInternationalAddresses(t *testing.T) {
	t.Parallel()
	q := queuetest.New()
	w := &Writer{Hostname: "mx2.demo.example", Queue: q, Auth: pass}
	env := envelope()
	env.Return, env.SMTPUTF8 = "FULL", true
	env.Recipients = []smtp.Recipient{{Address: "käthe@demo.example"}}
	rc := []queue.RecipientStatus{{Address: "käthe@demo.example", State: queue.RecipientRefused, Code: 554, Text: "no"}}
	if err := w.Bounce(t.Context(), env, rc, strings.NewReader(original)); err != nil {
		t.Fatal(err)
	}
	m := q.Messages()[0]
	_, types, bodies := parts(t, m.Body)
	if strings.Join(types, " ") != "text/plain message/global-delivery-status message/global" || !m.Envelope.SMTPUTF8 {
		t.Errorf("parts %v, smtputf8 %t", types, m.Envelope.SMTPUTF8)
	}
	if !strings.Contains(bodies[1], "Final-Recipient: utf-8; käthe@demo.example") || !strings.Contains(bodies[1], "Status: 5.0.0") {
		t.Errorf("status %s", bodies[1])
	}
	if bodies[2] != original {
		t.Errorf("returned %q", bodies[2])
	}
}

func TestNobodyElseIsWrittenTo(t *testing.T) {
	t.Parallel()
	null := envelope()
	null.Sender = ""
	never := envelope()
	for i := range never.Recipients {
		never.Recipients[i].Notify = []string{"NEVER"}
	}
	delayOnly := envelope()
	for i := range delayOnly.Recipients {
		delayOnly.Recipients[i].Notify = []string{"DELAY"}
	}
	for _, tc := range []struct {
		name string
		env  *smtp.Envelope
		auth Authenticator
		want error
	}{
		{"unauthenticated sender", envelope(), verdict{}, ErrUnauthenticated},
		{"dns does not answer", envelope(), verdict{err: auth.ErrUnknown}, auth.ErrUnknown},
		{"null sender", null, pass, nil},
		{"NOTIFY=NEVER", never, pass, nil},
		{"NOTIFY=DELAY is not about failures", delayOnly, pass, nil},
	} {
		q := queuetest.New()
		w := &Writer{Hostname: "mx2.demo.example", Queue: q, Auth: tc.auth}
		if err := w.Bounce(t.Context(), tc.env, statuses(), strings.NewReader(original)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if n := len(q.Messages()); n != 0 {
			t.Errorf("%s: %d notifications", tc.name, n)
		}
	}
}

func TestBounceFailsWhenTheQueueDoes(t *testing.T) {
	t.Parallel()
	q := queuetest.New()
	q.FailCommits(smtp.ErrFull)
	w := &Writer{Hostname: "mx2.demo.example", Queue: q, Auth: pass}
	if err := w.Bounce(t.Context(), envelope(), statuses(), strings.NewReader(original)); !errors.Is(err, smtp.ErrFull) {
		t.Errorf("bounce = %v: the message would be removed though nobody was told", err)
	}
	if q.OpenDrafts() != 0 {
		t.Error("a draft was left open")
	}
}

func TestDelayNotice(t *testing.T) {
	t.Parallel()
	q := queuetest.New()
	w := &Writer{Hostname: "mx2.demo.example", Queue: q, Auth: pass}
	until := time.Date(2026, 12, 24, 12, 0, 0, 0, time.UTC)
	rc := []queue.RecipientStatus{{Address: "there@demo.example", State: queue.RecipientPending, Text: "connection refused"}}
	if err := w.Delay(t.Context(), envelope(), rc, until, strings.NewReader(original)); err != nil {
		t.Fatal(err)
	}
	_, _, bodies := parts(t, q.Messages()[0].Body)
	for _, want := range []string{"Action: delayed\r\n", "Status: 4.0.0\r\n", "Will-Retry-Until: Thu, 24 Dec 2026 12:00:00 +0000\r\n"} {
		if !strings.Contains(bodies[1], want) {
			t.Errorf("status lacks %q:\n%s", want, bodies[1])
		}
	}
}
