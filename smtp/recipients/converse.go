package recipients

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"

	"understudy/smtp"
)

// maxTalkBytes bounds what a primary may say in one session.
const maxTalkBytes = 256 << 10

// errHandshake is wrapped where STARTTLS was offered and did not work.
var errHandshake = errors.New("TLS")

// converse is one SMTP session. A refusal counts only if the same session
// accepts postmaster and refuses a name nobody has: a sick primary, or one that
// refuses us, refuses postmaster as well.
func (k *asker) converse(ctx context.Context, a smtp.Address) (calloutAnswer, string, error) {
	t, err := k.open(ctx, true)
	if errors.Is(err, errHandshake) && ctx.Err() == nil {
		// Opportunistic (RFC 7435): what is asked is no secret to whoever may listen,
		// and nothing that is learned depends on it.
		t, err = k.open(ctx, false)
	}
	if err != nil {
		return calloutUnsure, "", fmt.Errorf("callout: %w", err)
	}
	defer t.close()
	answer, words, err := t.probe(a)
	if err != nil {
		return calloutUnsure, "", fmt.Errorf("callout: %w", ended(ctx, err))
	}
	return answer, words, nil
}

// talk is a session with the primary.
type talk struct {
	conn net.Conn
	text *textproto.Conn
	stop func() bool
	ext  map[string]bool // what it offers
}

// open connects and greets, with TLS where that is offered and wanted.
func (k *asker) open(ctx context.Context, secure bool) (*talk, error) {
	nc, err := k.dial(ctx, "tcp", k.address)
	if err != nil {
		return nil, err
	}
	t := &talk{stop: context.AfterFunc(ctx, func() { _ = nc.Close() })}
	t.attach(nc)
	if err := t.greet(ctx, k, secure); err != nil {
		t.close()
		return nil, ended(ctx, err)
	}
	return t, nil
}

// attach makes conn the one that is spoken on; nothing read before counts.
func (t *talk) attach(conn net.Conn) {
	t.conn = conn
	t.text = textproto.NewConn(struct {
		io.Reader
		io.WriteCloser
	}{io.LimitReader(conn, maxTalkBytes), conn})
}

func (t *talk) close() {
	t.stop()
	_ = t.conn.Close()
}

func (t *talk) greet(ctx context.Context, k *asker, secure bool) error {
	if code, words, err := t.reply(); err != nil || code != 220 {
		return orReply("connect", words, err)
	}
	if err := t.hello(k.hostname); err != nil {
		return err
	}
	if !secure || !t.ext["STARTTLS"] {
		return nil
	}
	code, words, err := t.command("STARTTLS")
	if err != nil {
		return err
	}
	if code != 220 {
		return fmt.Errorf("%w: %s", errHandshake, words)
	}
	host, _, err := net.SplitHostPort(k.address)
	if err != nil {
		return err
	}
	tc := tls.Client(t.conn, &tls.Config{ServerName: host, InsecureSkipVerify: true}) //nolint:gosec // opportunistic, see converse
	if err := tc.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", errHandshake, err)
	}
	t.attach(tc)
	// RFC 3207, section 4.2: what was said before does not count any more.
	return t.hello(k.hostname)
}

// hello says EHLO, or HELO to a server that does not know it.
func (t *talk) hello(name string) error {
	t.ext = make(map[string]bool)
	code, words, err := t.command("EHLO " + name)
	if err == nil && (code == 500 || code == 502) {
		code, words, err = t.command("HELO " + name)
	}
	if err != nil || code != 250 {
		return orReply("EHLO", words, err)
	}
	for line := range strings.Lines(words) {
		keyword, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		t.ext[strings.ToUpper(keyword)] = true
	}
	return nil
}

// probe asks for one address.
func (t *talk) probe(a smtp.Address) (calloutAnswer, string, error) {
	mail := "MAIL FROM:<>"
	if isUTF8(a.Local) {
		if !t.ext["SMTPUTF8"] {
			return calloutUnsure, "the primary does not offer SMTPUTF8", nil
		}
		mail += " SMTPUTF8"
	}
	if code, words, err := t.command(mail); err != nil || code/100 != 2 {
		return calloutUnsure, "", orReply("MAIL", words, err)
	}
	rcpt := func(to string) (int, string, error) { return t.command("RCPT TO:<" + to + ">") }
	code, words, err := rcpt(a.String())
	if err != nil {
		return calloutUnsure, "", err
	}
	switch {
	case code/100 == 2:
		t.quit()
		return calloutYes, "accepted", nil
	case code/100 != 5:
		return calloutUnsure, words, nil
	}
	code, postmaster, err := rcpt("postmaster@" + a.Domain)
	if err != nil {
		return calloutUnsure, "", err
	}
	if code/100 != 2 {
		return calloutUnsure, fmt.Sprintf("%s; but postmaster is not accepted either: %s", words, postmaster), nil
	}
	code, random, err := rcpt("no-such-user-" + rand.Text()[:16] + "@" + a.Domain)
	if err != nil {
		return calloutUnsure, "", err
	}
	t.quit()
	switch {
	case code/100 != 5:
		return calloutUnsure, fmt.Sprintf("%s; but a name nobody has is not refused: %s", words, random), nil
	case refusedForReason(words) && enhanced(words) != enhanced(random):
		// An existing address may be full, or take no mail from the null sender.
		return calloutUnsure, fmt.Sprintf("%s; but a name nobody has is refused otherwise: %s", words, random), nil
	}
	return calloutNo, words, nil
}

// quit does not wait for an answer: a client waits for ours.
func (t *talk) quit() { _ = t.text.PrintfLine("QUIT") }

// command sends a line and returns the reply, whatever its code. The session's
// context bounds it.
func (t *talk) command(line string) (code int, words string, err error) {
	if strings.ContainsAny(line, "\r\n\x00") {
		return 0, "", fmt.Errorf("%s: %w", verb(line), smtp.ErrAddress)
	}
	if err := t.text.PrintfLine("%s", line); err != nil {
		return 0, "", fmt.Errorf("%s: %w", verb(line), err)
	}
	code, words, err = t.reply()
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", verb(line), err)
	}
	return code, words, nil
}

// reply returns words as they came, with the code in front of a refusal.
func (t *talk) reply() (int, string, error) {
	code, words, err := t.text.ReadResponse(0)
	if err != nil {
		return 0, "", err
	}
	if code/100 > 3 {
		words = fmt.Sprintf("%d %s", code, strings.ReplaceAll(words, "\n", " "))
	}
	return code, words, nil
}

// orReply is the error of a step that ended with err, or was answered by words.
func orReply(step, words string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return fmt.Errorf("%s: %s", step, words)
}

func verb(line string) string {
	v, _, _ := strings.Cut(line, " ")
	return v
}

// enhanced returns the enhanced status code (RFC 3463) of a refusal, if there is
// one: "550 5.1.1 no such user".
func enhanced(words string) string {
	fields := strings.Fields(words)
	if len(fields) > 1 && strings.Count(fields[1], ".") == 2 && fields[1][0] == '5' {
		return fields[1]
	}
	return ""
}

// refusedForReason says that the mailbox may well exist: it is full (5.2.2), or
// a rule refuses the sender (5.7).
func refusedForReason(words string) bool {
	e := enhanced(words)
	return e == "5.2.2" || strings.HasPrefix(e, "5.7.")
}

func isUTF8(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
