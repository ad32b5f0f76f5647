package recipients

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"understudy/smtp"
)

func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	ca := newAuthority(t, net.IPv4(127, 0, 0, 1))
	cert, err := tls.LoadX509KeyPair(ca.Certificate, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

// What is asked goes through TLS where the primary offers it, whoever has signed
// its certificate, and in clear text where that does not work.
func TestCalloutSTARTTLS(t *testing.T) {
	t.Parallel()
	good := serverTLS(t)
	for _, tc := range []struct {
		name string
		tls  *tls.Config
		says map[string]string
		want string // begin of what the primary hears last
	}{
		{"offered", good, nil, "EHLO mx2.example.com|STARTTLS|tls EHLO mx2.example.com|tls MAIL FROM:<>|tls RCPT TO:<user@example.com>"},
		{"not offered", nil, nil, "EHLO mx2.example.com|MAIL FROM:<>|RCPT TO:<user@example.com>"},
		{"refused", good, map[string]string{"STARTTLS": "454 4.7.0 no certificate"}, "EHLO mx2.example.com|STARTTLS|EHLO mx2.example.com|MAIL FROM:<>|RCPT TO:<user@example.com>"},
		{"broken", &tls.Config{}, nil, "EHLO mx2.example.com|STARTTLS|EHLO mx2.example.com|MAIL FROM:<>|RCPT TO:<user@example.com>"}, //nolint:gosec // it has no certificate
		{"an old server", nil, map[string]string{"EHLO": "502 5.5.1 what?"}, "EHLO mx2.example.com|HELO mx2.example.com|MAIL FROM:<>|RCPT TO:<user@example.com>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := startPrimary(t, healthy, func(p *primary) { p.tls, p.says = tc.tls, tc.says })
			d := newWorld(t).open(calloutConfig(p))
			expect(t, d, map[string]smtp.Disposition{"user@example.com": smtp.Exists})
			if got := p.commands(); !strings.HasPrefix(got, tc.want) {
				t.Errorf("heard %s", got)
			}
			expect(t, d, map[string]smtp.Disposition{"nobody@example.com": smtp.Unknown})
		})
	}
}

// A sick primary's refusals are not learned, whatever it refuses, and are not
// remembered after it is well again.
func TestCalloutSickPrimary(t *testing.T) {
	t.Parallel()
	refuse := func(string) string { return "550 5.1.1 User unknown in virtual mailbox table" }
	for name, says := range map[string]map[string]string{
		"from the greeting on": {"": "550 no", "EHLO": "550 no", "HELO": "550 no", "MAIL": "550 no"},
		"from EHLO on":         {"EHLO": "550 no", "HELO": "550 no", "MAIL": "550 no"},
		"from MAIL on":         {"MAIL": "550 5.7.1 no"},
		"each RCPT":            nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPrimary(t, refuse, func(p *primary) { p.says = says })
			w := newWorld(t)
			cfg := calloutConfig(p)
			cfg.WhenStale = StaleExact
			d := w.open(cfg)
			stop := w.run(d)
			for _, address := range []string{"user@example.com", "nobody@example.com", "postmaster@example.com", "user@example.com"} {
				expect(t, d, map[string]smtp.Disposition{address: smtp.Unsure})
			}
			if n := d.callouts[0].cache.len(); n != 0 {
				t.Errorf("%d answers remembered", n)
			}
			stop()
			well := startPrimary(t, healthy)
			d = w.open(cfg)
			d.callouts[0].ask = newAsker(well.address(), "mx2.example.com", time.Second)
			expect(t, d, map[string]smtp.Disposition{"user@example.com": smtp.Exists, "nobody@example.com": smtp.Unknown})
		})
	}
}

// An address that exists may be refused for another reason.
func TestCalloutRefusedForAReason(t *testing.T) {
	t.Parallel()
	p := startPrimary(t, func(a string) string {
		switch a {
		case "full@example.com":
			return "552 5.2.2 mailbox is full"
		case "list@example.com":
			return "550 5.7.1 the null sender may not write to lists"
		}
		return healthy(a)
	})
	d := newWorld(t).open(calloutConfig(p))
	expect(t, d, map[string]smtp.Disposition{
		"full@example.com": smtp.Unsure, "list@example.com": smtp.Unsure, "nobody@example.com": smtp.Unknown,
	})
	// Where everybody unknown is refused by policy, that is what unknown looks like.
	p = startPrimary(t, func(a string) string {
		if reply := healthy(a); strings.HasPrefix(reply, "250") {
			return reply
		}
		return "554 5.7.1 relay access denied"
	})
	expect(t, newWorld(t).open(calloutConfig(p)), map[string]smtp.Disposition{"nobody@example.com": smtp.Unknown})
}

// RFC 6531, section 3.4: such an address may only be sent to a server that offers it.
func TestCalloutUTF8(t *testing.T) {
	t.Parallel()
	p := startPrimary(t, healthy)
	d := newWorld(t).open(calloutConfig(p))
	expect(t, d, map[string]smtp.Disposition{"jürgen@example.com": smtp.Unsure})
	p = startPrimary(t, healthy, func(p *primary) { p.offer = "250-SMTPUTF8\r\n" })
	d = newWorld(t).open(calloutConfig(p))
	expect(t, d, map[string]smtp.Disposition{"jürgen@example.com": smtp.Unknown})
	if got := p.commands(); !strings.Contains(got, "MAIL FROM:<> SMTPUTF8|RCPT TO:<jürgen@example.com>") {
		t.Errorf("heard %s", got)
	}
}

// A primary that hangs, or never stops talking, costs no more than the time-out.
func TestCalloutHangs(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a fake
	a, err := smtp.ParseAddress("user@example.com")
	if err != nil {
		t.Fatal(err)
	}
	k := newAsker(l.Addr().String(), "", 200*time.Millisecond)
	if answer, _, err := k.ask(t.Context(), a); answer != calloutUnsure || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v %v", answer, err)
	}
	endless := make(chan error, 1)
	go func() {
		c, err := l.Accept() // the one of above
		if err == nil {
			_ = c.Close()
			c, err = l.Accept()
		}
		for err == nil {
			_, err = fmt.Fprint(c, "220-"+strings.Repeat("x", 4000)+"\r\n")
		}
		endless <- err
	}()
	k = newAsker(l.Addr().String(), "", 15*time.Second)
	if answer, _, err := k.ask(t.Context(), a); answer != calloutUnsure || err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v %v", answer, err)
	}
	if err := <-endless; err == nil {
		t.Error("it was read to its end")
	}
}
