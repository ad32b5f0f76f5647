package spamd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"understudy/smtp"
	"understudy/spamsync/engine/link"
)

const engineName = "spamassassin"

// The commands that spamd may be asked with.
const (
	// Check asks for the score alone.
	Check = "check"
	// Symbols asks for the names of the tests that hit, too.
	Symbols = "symbols"
	// Headers asks for SpamAssassin's own X-Spam header fields and takes them over.
	Headers = "headers"
)

// Options say where spamd is and how it is asked.
type Options struct {
	// Addresses as link.Parse reads them, the preferred one first.
	Addresses []string
	// Timeout bounds one Check, all servers together.
	Timeout time.Duration
	// Rest is how long a server that failed is asked last.
	Rest time.Duration
	// Hostname is our name in the trace line that is sent.
	Hostname string
	// Command is Check, Symbols or Headers; empty is Symbols.
	Command string
	// User is whose preferences apply; empty is spamd's own choice.
	User string
	// MaxBytes is the longest message that is judged; a longer one is accepted, as
	// spamc does. 0 sends all.
	MaxBytes int64
	// RejectScore is the score from which a message is rejected; 0 is never.
	RejectScore float64
}

// maxAnswerBytes bounds an answer; with Headers it holds the message's header.
const maxAnswerBytes = 4 << 20

// Filter is an smtp.Filter. It may be used concurrently.
type Filter struct {
	opt     Options
	servers *link.Servers
}

var _ smtp.Filter = (*Filter)(nil)

// New checks opt. It dials nothing.
func New(opt Options) (*Filter, error) {
	for _, a := range opt.Addresses {
		if _, _, err := link.Parse(a); err != nil {
			return nil, err
		}
	}
	if opt.Command == "" {
		opt.Command = Symbols
	}
	switch {
	case opt.Command != Check && opt.Command != Symbols && opt.Command != Headers:
		return nil, fmt.Errorf("unknown command %q", opt.Command)
	case opt.Timeout <= 0:
		return nil, errors.New("spamd needs a timeout")
	case link.Text(opt.User, 256) != opt.User:
		return nil, errors.New("malformed user of spamd")
	case opt.Hostname == "":
		opt.Hostname = "localhost"
	}
	servers, err := link.NewServers(opt.Addresses, opt.Rest)
	if err != nil {
		return nil, err
	}
	return &Filter{opt: opt, servers: servers}, nil
}

// Check implements smtp.Filter.
func (f *Filter) Check(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker) (smtp.Verdict, error) {
	size, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return smtp.Verdict{}, fmt.Errorf("measure message: %w", err)
	}
	if f.opt.MaxBytes > 0 && size > f.opt.MaxBytes {
		return smtp.Verdict{Engine: engineName, Symbols: []smtp.Symbol{{Name: "SPAMD_SKIPPED_BY_SIZE"}}}, nil
	}
	trace := f.trace(env)
	var a answer
	err = f.servers.Try(ctx, f.opt.Timeout, func(ctx context.Context, server string) error {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("rewind message: %w", err)
		}
		var err error
		a, err = f.ask(ctx, server, trace, body, size)
		return err
	})
	if err != nil {
		return smtp.Verdict{}, fmt.Errorf("ask spamd: %w", err)
	}
	return a.verdict(f.opt.RejectScore), nil
}

// ask sends the message to one server and reads its answer.
func (f *Filter) ask(ctx context.Context, server, trace string, body io.Reader, size int64) (answer, error) {
	conn, err := link.Dial(ctx, server, maxAnswerBytes)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = conn.Close() }()
	out := bufio.NewWriterSize(conn, 64<<10)
	// The trace lines end with CRLF as the message's do.
	_, err = fmt.Fprintf(out, "%s SPAMC/1.5\r\nContent-length: %d\r\n", strings.ToUpper(f.opt.Command), int64(len(trace))+size)
	if err == nil && f.opt.User != "" {
		_, err = fmt.Fprintf(out, "User: %s\r\n", f.opt.User)
	}
	if err == nil {
		_, err = io.WriteString(out, "\r\n"+trace)
	}
	if err != nil {
		return answer{}, fmt.Errorf("send request: %w", err)
	}
	// struct{...}: what bufio reads itself is bounded by its buffer.
	if n, err := io.Copy(struct{ io.Writer }{out}, struct{ io.Reader }{body}); err != nil {
		return answer{}, fmt.Errorf("send message: %w", err)
	} else if n != size {
		return answer{}, fmt.Errorf("send message: %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	if err := out.Flush(); err != nil {
		return answer{}, fmt.Errorf("send message: %w", err)
	}
	// Spamd reads lines: without this it waits for the rest of a last line that has no
	// end.
	if half, ok := conn.Conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return answer{}, fmt.Errorf("send message: %w", err)
		}
	}
	return parse(conn, f.opt.Command)
}

// trace returns the header lines that tell SpamAssassin of the envelope, in the
// form it knows from Postfix.
func (f *Filter) trace(env *smtp.Envelope) string {
	word := func(s, fallback string) string {
		s = link.Name(strings.ToValidUTF8(s, "_"))
		if s == "" {
			return fallback
		}
		return s
	}
	address := func(s string) string {
		return strings.NewReplacer("<", "?", ">", "?").Replace(link.Text(s, 320))
	}
	var b strings.Builder
	b.WriteString(smtp.FormatHeader("X-Envelope-From", "<"+address(env.Sender)+">"))
	for i, r := range env.Recipients {
		if i == 100 {
			break
		}
		b.WriteString(smtp.FormatHeader("X-Envelope-To", "<"+address(r.Address)+">"))
	}
	ip := "unknown"
	if a := env.Client.Addr.Addr(); a.IsValid() {
		if ip = a.Unmap().WithZone("").String(); strings.Contains(ip, ":") {
			ip = "IPv6:" + ip
		}
	}
	auth := ""
	if env.Client.User != "" {
		auth = "\n\t(Authenticated sender: " + word(env.Client.User, "unknown") + ")"
	}
	b.WriteString(smtp.FormatHeader("Received", fmt.Sprintf("from %s (%s [%s])%s\n\tby %s (understudy) with %s id %s;\n\t%s",
		word(env.Client.HELO, "unknown"), word(env.Client.ReverseName, "unknown"), ip, auth,
		f.opt.Hostname, word(env.Client.Protocol, "SMTP"), word(env.ID, "unknown"), env.Received.UTC().Format(time.RFC1123Z))))
	return b.String()
}
