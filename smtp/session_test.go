package smtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

func TestRcptPolicy(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ to, want string }{
		{"user@example.com", "250"},
		{"USER@EXAMPLE.COM", "250"},
		{"user@example.com.", "250"},
		{"nobody@example.com", "550 5.1.1 <nobody@example.com>: Recipient address rejected: User unknown"},
		{"stale@example.com", "450 4.1.1 <stale@example.com>: Recipient address rejected: cannot be verified now, please try later"},
		{"broken@example.com", "451 4.3.0 <broken@example.com>: Temporary local problem, please try later"},
		{"user@elsewhere.example", "554 5.7.1 <user@elsewhere.example>: Relay access denied"},
		{"postmaster@elsewhere.example", "554 5.7.1 <postmaster@elsewhere.example>: Relay access denied"},
		{"postmaster", "250"},
		{"Postmaster", "250"},
		{"PostMaster@example.com", "250"},
		{`"postmaster"@example.com`, "250"},
		{"user", "550 5.1.3 <user>: Recipient address needs a domain"},
		{"user@bücher.example", "250"},
		{"user@BÜCHER.example", "250"},
		{"user@xn--bcher-kva.example", "250"},
		{"user%elsewhere.example@example.com", "550 5.1.1 <user%elsewhere.example@example.com>: Recipient address rejected: User unknown"},
		{`"a b"@example.com`, "250"},
		{`"a\ b"@example.com`, "250"},
		{`"quoted"@example.com`, "250"},
		{"user@example.com@elsewhere.example", "554 5.7.1 <user@example.com@elsewhere.example>: Relay access denied"},
		{"a b@example.com", "553 5.1.3 <a b@example.com>: Malformed recipient address"},
		{"", "553 5.1.3 Malformed recipient address"},
		{"evil\r\n250 ok@example.com", "553 5.1.3 <evil??250 ok@example.com>: Malformed recipient address"},
	} {
		t.Run(tc.to, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			s := w.session("192.0.2.1")
			if err := s.Mail("a@sender.example", nil); err != nil {
				t.Fatal(err)
			}
			if got := reply(s.Rcpt(tc.to, nil)); got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
			if got := w.front.Answer(t.Context(), tc.to); got[:3] != tc.want[:3] {
				t.Errorf("operators are told %q", got)
			}
			if strings.Contains(tc.want, "451") && !strings.Contains(w.logs.String(), "secret path") {
				t.Error("the cause is not in the log")
			}
			if err := s.Logout(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMailPolicy(t *testing.T) {
	t.Parallel()
	inactive := func(_ *Config, d *Deps) { d.Active = func() bool { return false } }
	for _, tc := range []struct {
		name, addr, from string
		size             int64
		change           func(*Config, *Deps)
		want             string
	}{
		{"null sender", "192.0.2.1", "", 0, nil, "250"},
		{"plain", "192.0.2.1", "a@b.example", 0, nil, "250"},
		{"no domain", "192.0.2.1", "a", 0, nil, "553 5.1.7 Malformed sender address"},
		{"at the limit", "192.0.2.1", "a@b.example", 1000, func(_ *Config, d *Deps) { d.MaxMessageBytes = 1000 }, "250"},
		{"over the limit", "192.0.2.1", "a@b.example", 1001, func(_ *Config, d *Deps) { d.MaxMessageBytes = 1000 }, "552 5.3.4 Message size exceeds fixed limit"},
		{"full", "192.0.2.1", "a@b.example", 5, func(_ *Config, d *Deps) { d.Queue = &memQueue{roomErr: ErrFull} }, "452 4.3.1 Insufficient system storage"},
		{"broken queue", "192.0.2.1", "a@b.example", 5, func(_ *Config, d *Deps) { d.Queue = &memQueue{roomErr: errors.New("x")} }, "451 4.3.0 Temporary local problem, please try later"},
		{"stranger at a standby", "192.0.2.1", "a@b.example", 0, inactive, "250"},
		{"peer at a standby", "192.0.2.250", "a@b.example", 0, inactive, "451 4.3.2 This site is not active"},
		{"mapped peer at a standby", "::ffff:192.0.2.250", "a@b.example", 0, inactive, "451 4.3.2 This site is not active"},
		{"peer at the active", "192.0.2.250", "a@b.example", 0, nil, "250"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tc.change)
			s := w.session(tc.addr)
			if got := reply(s.Mail(tc.from, &gosmtp.MailOptions{Size: tc.size})); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// A front server that passes the other understudy's mail on is not the other
// understudy: what it passes on next is from somebody else.
func TestFrontServerDoesNotBecomeThePeer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *Config, d *Deps) { d.Active = func() bool { return false } })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, step := range []struct {
		addr string
		peer bool
	}{{"127.0.0.1:1", false}, {"192.0.2.250:1", true}, {"203.0.113.9:1", false}} {
		s, err := w.front.connect(ctx, &fakeConn{id: "one", addr: netip.MustParseAddrPort(step.addr)})
		if err != nil {
			t.Fatal(err)
		}
		if s.peer != step.peer {
			t.Errorf("%s: peer %v", step.addr, s.peer)
		}
		if err := s.Logout(); err != nil {
			t.Error(err)
		}
	}
}

// After XCLIENT the address is the origin's, but the other understudy still speaks.
func TestPeerBehindXCLIENT(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *Config, d *Deps) { d.Active = func() bool { return false } })
	ctx, cancel := context.WithCancel(t.Context())
	c := &fakeConn{id: "one", addr: netip.MustParseAddrPort("192.0.2.250:1")}
	s, err := w.front.connect(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Logout(); err != nil {
		t.Fatal(err)
	}
	c.addr = netip.MustParseAddrPort("198.51.100.7:2")
	if s, err = w.front.connect(ctx, c); err != nil {
		t.Fatal(err)
	}
	if got := reply(s.Mail("a@b.example", nil)); !strings.HasPrefix(got, "451 4.3.2") {
		t.Errorf("got %q", got)
	}
	cancel()
	waitFor(t, func() bool { _, known := w.front.peerConns.Load("one"); return !known })
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := w.session("192.0.2.1")
	opts := &gosmtp.MailOptions{Body: gosmtp.Body8BitMIME, UTF8: true, RequireTLS: true, Return: gosmtp.DSNReturnFull, EnvelopeID: "a+b"}
	if err := s.Mail("a@b.example", opts); err != nil {
		t.Fatal(err)
	}
	rcpt := &gosmtp.RcptOptions{
		Notify: []gosmtp.DSNNotify{gosmtp.DSNNotifyFailure, gosmtp.DSNNotifyDelayed}, OriginalRecipientType: gosmtp.DSNAddressTypeRFC822, OriginalRecipient: "u+x@example.com",
	}
	for _, to := range []string{"User@example.com", "other@example.com", "User@example.com"} {
		if err := s.Rcpt(to, rcpt); err != nil {
			t.Fatal(err)
		}
	}
	got := reply(s.Data(strings.NewReader("Subject: x\r\n\r\nbody\r\n")))
	if got != "250 2.0.0 queued as Q1" {
		t.Fatalf("got %q", got)
	}
	m := w.queue.messages()[0]
	env := m.env
	if env.Sender != "a@b.example" || env.Body != "8BITMIME" || !env.SMTPUTF8 || !env.RequireTLS || env.Return != "FULL" || env.EnvelopeID != "a+2Bb" {
		t.Errorf("envelope: %+v", env)
	}
	if len(env.Recipients) != 2 || env.Recipients[0].Address != "User@example.com" {
		t.Fatalf("recipients: %+v", env.Recipients)
	}
	if r := env.Recipients[0]; r.ORCPT != "rfc822;u+2Bx@example.com" || strings.Join(r.Notify, ",") != "FAILURE,DELAY" {
		t.Errorf("recipient: %+v", r)
	}
	if env.Client.HELO != "client.example.net" || env.Client.Addr.String() != "192.0.2.1:4711" || env.Client.Peer {
		t.Errorf("client: %+v", env.Client)
	}
	if !strings.HasPrefix(m.data, "Received: from client.example.net ") || !strings.HasSuffix(m.data, "Subject: x\r\n\r\nbody\r\n") {
		t.Errorf("stored %q", m.data)
	}
	if err := s.Rcpt("user@example.com", nil); !strings.HasPrefix(reply(err), "503") {
		t.Errorf("RCPT behind the message: %s", reply(err))
	}
}

// Every repeated recipient is taken once, few or many.
func TestRepeatedRecipients(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *Config, d *Deps) { d.Recipients = anyone{} })
	s := w.session("192.0.2.1")
	if err := s.Mail("", nil); err != nil {
		t.Fatal(err)
	}
	const n = 3 * fewRecipients
	for range 3 {
		for i := range n {
			if err := s.Rcpt(fmt.Sprintf("u%d@example.com", i), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := len(s.tx.env.Recipients); got != n {
		t.Errorf("%d recipients, want %d", got, n)
	}
}

type anyone struct{}

func (anyone) Lookup(context.Context, string) (Disposition, error) { return Exists, nil }

func TestDataErrors(t *testing.T) {
	t.Parallel()
	const temp = "451 4.3.0 <user@example.com>: Temporary local problem, please try later"
	const full = "452 4.3.1 <user@example.com>: Insufficient system storage"
	secret := errors.New("/var/lib/secret: i/o error")
	for _, tc := range []struct {
		name  string
		queue *memQueue
		want  string
	}{
		{"write fails", &memQueue{writeErr: secret}, temp},
		{"write full", &memQueue{writeErr: ErrFull}, full},
		{"commit fails", &memQueue{commit: func() error { return secret }}, temp},
		{"commit full", &memQueue{commit: func() error { return ErrFull }}, full},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(_ *Config, d *Deps) { d.Queue = tc.queue })
			s := w.session("192.0.2.1")
			r := strings.NewReader("Subject: x\r\n\r\nbody\r\n")
			if err := errors.Join(s.Mail("", nil), s.Rcpt("user@example.com", nil)); err != nil {
				t.Fatal(err)
			}
			if got := reply(s.Data(r)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if r.Len() > 0 {
				t.Error("the message was not read to its end")
			}
			if tc.queue.openDrafts() != 0 || len(tc.queue.messages()) != 0 {
				t.Error("a draft is left")
			}
			if n := strings.Count(w.logs.String(), "i/o error"); n > 1 || tc.want == temp && n == 0 {
				t.Errorf("the cause is logged %d times", n)
			}
		})
	}
}

func TestBrokenMessageIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := w.session("192.0.2.1")
	if err := errors.Join(s.Mail("", nil), s.Rcpt("user@example.com", nil)); err != nil {
		t.Fatal(err)
	}
	err := s.Data(io.MultiReader(strings.NewReader("Subject: x\r\n\r\nbo"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if w.queue.openDrafts() != 0 || len(w.queue.messages()) != 0 {
		t.Error("a broken message is left")
	}
}

func TestCreateFailsLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := w.session("192.0.2.1")
	if err := errors.Join(s.Mail("", nil), s.Rcpt("user@example.com", nil)); err != nil {
		t.Fatal(err)
	}
	w.queue.roomErr = ErrFull
	r := strings.NewReader("body")
	if got := reply(s.Data(r)); !strings.HasPrefix(got, "452 4.3.1") || r.Len() != 0 {
		t.Errorf("got %q, %d bytes unread", got, r.Len())
	}
}

func TestRejectLogLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := w.session("192.0.2.1")
	if err := s.Mail("a@b.example", nil); err != nil {
		t.Fatal(err)
	}
	_ = s.Rcpt("nobody@example.com", nil)
	want := `msg=reject session=S-192.0.2.1 stage=RCPT client=unknown addr=192.0.2.1 code=550 enhanced=5.1.1 ` +
		`reason="Recipient address rejected: User unknown" from=a@b.example to=nobody@example.com helo=client.example.net proto=ESMTP`
	if !strings.Contains(w.logs.String(), want) {
		t.Errorf("log has no %q:\n%s", want, w.logs)
	}
}

func TestETRN(t *testing.T) {
	t.Parallel()
	var flushed []string
	var fail error
	w := newWorld(t, func(c *Config, d *Deps) {
		c.ETRNFrom = []string{"192.0.2.0/28"}
		d.Flush = func(domain string) error { flushed = append(flushed, domain); return fail }
	})
	in, out := w.session("192.0.2.1"), w.session("198.51.100.1")
	for _, tc := range []struct {
		s         *session
		arg, want string
	}{
		{in, "Example.com", "250 2.0.0 Queuing for node started"},
		{in, "@bücher.example", "250 2.0.0 Queuing for node started"},
		{in, "#all", "250 2.0.0 Queuing for node started"},
		{in, "other.example", "459 4.7.1 Node not allowed: no mail is kept for this domain"},
		{in, "a b", "501 5.5.4 Syntax error in parameters"},
		{out, "example.com", "459 4.7.1 Node not allowed: you are not listed"},
	} {
		if got := reply(tc.s.ETRN(tc.arg)); got != tc.want {
			t.Errorf("ETRN %s: got %q, want %q", tc.arg, got, tc.want)
		}
	}
	if got := strings.Join(flushed, ","); got != "example.com,xn--bcher-kva.example," {
		t.Errorf("flushed %q", got)
	}
	fail = errors.New("x")
	if got := reply(in.ETRN("example.com")); !strings.HasPrefix(got, "458") {
		t.Errorf("got %q", got)
	}
}

// names is a Resolver from two maps.
type names struct {
	ptr  map[string][]string
	addr map[string][]netip.Addr
}

func (n names) LookupAddr(ctx context.Context, a string) ([]string, error) {
	if a == "192.0.2.99" {
		<-ctx.Done() // a resolver that does not answer
		return nil, ctx.Err()
	}
	return n.ptr[a], nil
}

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return n.addr[host], nil
}

func TestReverseName(t *testing.T) {
	t.Parallel()
	res := names{
		ptr: map[string][]string{"192.0.2.1": {"forged.example.", "Mail.example."}, "192.0.2.2": {"forged.example."}},
		addr: map[string][]netip.Addr{
			"forged.example.": {netip.MustParseAddr("203.0.113.1")},
			"Mail.example.":   {netip.MustParseAddr("192.0.2.1")},
		},
	}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Resolver = res })
	for addr, want := range map[string]string{"192.0.2.1": "mail.example", "192.0.2.2": "", "192.0.2.3": "", "::ffff:192.0.2.1": "mail.example"} {
		s := w.session(addr)
		if got := s.client().ReverseName; got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
		if err := s.Logout(); err != nil {
			t.Error(err)
		}
	}
}

// The end of a session ends the look-up: in a bubble, without a moment passing.
func TestReverseNameIsCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ *Config, d *Deps) { d.Resolver = names{} })
		s := w.session("192.0.2.99")
		began := time.Now()
		if err := s.Logout(); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("took %v", d)
		}
		s = w.session("192.0.2.99")
		if name := s.client().ReverseName; name != "" || time.Since(began) != 5*time.Second {
			t.Errorf("name %q after %v", name, time.Since(began))
		}
		if err := s.Logout(); err != nil {
			t.Error(err)
		}
	})
}
