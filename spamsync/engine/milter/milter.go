package milter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	gomilter "github.com/emersion/go-milter"

	"understudy/smtp"
	"understudy/spamsync/engine/link"
)

const engineName = "milter"

// Options say which milters are asked.
type Options struct {
	// Addresses as link.Parse reads them, in the order in which they are asked.
	// All are asked, unless one refuses the message.
	Addresses []string
	// Timeout bounds one Check, all milters together.
	Timeout time.Duration
	// Hostname is the macro j, our name.
	Hostname string
	// Daemon is the macro {daemon_name}; empty is Hostname, as with Postfix:
	// Rspamd takes its name in Authentication-Results from it.
	Daemon string
	// Version is the macro v; empty is "understudy".
	Version string
}

// Filter is an smtp.Filter. It may be used concurrently.
type Filter struct {
	opt Options
	old sync.Map // addresses of milters that do not know version 6
}

var _ smtp.Filter = (*Filter)(nil)

// New checks opt. It dials nothing.
func New(opt Options) (*Filter, error) {
	if len(opt.Addresses) == 0 {
		return nil, errors.New("no milter is named")
	}
	for _, a := range opt.Addresses {
		if _, _, err := link.Parse(a); err != nil {
			return nil, err
		}
	}
	if opt.Timeout <= 0 {
		return nil, errors.New("milters need a timeout")
	}
	if opt.Daemon == "" {
		opt.Daemon = opt.Hostname
	}
	if opt.Version == "" {
		opt.Version = "understudy"
	}
	return &Filter{opt: opt}, nil
}

const (
	// maxAnswerBytes bounds all that one milter says of one message.
	maxAnswerBytes = 8 << 20
	// maxHeaderBytes bounds the header that is taken apart; what is beyond goes
	// to the milters as body.
	maxHeaderBytes = 4 << 20
	// maxFieldBytes bounds one field as it is told: it has to fit a packet.
	maxFieldBytes = 60_000
	// chunkBytes is the size of one piece of the body.
	chunkBytes = gomilter.MaxBodyChunk
)

// Check implements smtp.Filter.
func (f *Filter) Check(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker) (smtp.Verdict, error) {
	size, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return smtp.Verdict{}, fmt.Errorf("measure message: %w", err)
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return smtp.Verdict{}, fmt.Errorf("rewind message: %w", err)
	}
	header, bodyAt, err := readHeader(bufio.NewReaderSize(body, 32<<10), maxHeaderBytes)
	if err != nil {
		return smtp.Verdict{}, fmt.Errorf("read header of message: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, f.opt.Timeout)
	defer cancel()
	sum := smtp.Verdict{Engine: engineName}
	for _, address := range f.opt.Addresses {
		if _, err := body.Seek(bodyAt, io.SeekStart); err != nil {
			return smtp.Verdict{}, fmt.Errorf("rewind message: %w", err)
		}
		v, err := f.ask(ctx, address, env, header, body, size-bodyAt)
		if err != nil {
			return smtp.Verdict{}, fmt.Errorf("ask milter %s: %w", address, err)
		}
		if v.Action > sum.Action {
			sum = v
		}
		if v.Action == smtp.Reject || v.Action == smtp.Defer {
			return sum, nil // the message is not taken: no one else need see it
		}
	}
	sum.Header, sum.Edits = header.changes()
	sum.Spam = header.markedSpam()
	return sum, nil
}

// ask brings the message to one milter and makes its changes in header.
func (f *Filter) ask(ctx context.Context, address string, env *smtp.Envelope, header *header, body io.Reader, bodyBytes int64) (smtp.Verdict, error) {
	session, closeConn, err := f.connect(ctx, address)
	if err != nil {
		return smtp.Verdict{}, err
	}
	defer closeConn()
	t := talk{session: session, opt: f.opt, env: env}
	act, err := t.envelope()
	if err == nil && act == nil {
		act, err = t.header(header)
	}
	if err == nil && act == nil {
		act, err = t.body(body, bodyBytes)
	}
	var mods []gomilter.ModifyAction
	if err == nil && act == nil {
		mods, act, err = t.end()
	}
	if err != nil {
		return smtp.Verdict{}, err
	}
	_ = session.Close() // says QUIT; there is nothing to lose any more
	return judge(act, mods, header)
}

// Milters that want to be able to do more than a message needs refuse to work
// where it is not offered; what cannot be done is an error later. OptSkip is not
// offered: the library does not read its answer.
const (
	actions2 = gomilter.OptAddHeader | gomilter.OptChangeBody | gomilter.OptAddRcpt | gomilter.OptRemoveRcpt |
		gomilter.OptChangeHeader | gomilter.OptQuarantine
	protocol2 = gomilter.OptNoConnect | gomilter.OptNoHelo | gomilter.OptNoMailFrom | gomilter.OptNoRcptTo |
		gomilter.OptNoBody | gomilter.OptNoHeaders | gomilter.OptNoEOH
	actions6  = actions2 | gomilter.OptChangeFrom
	protocol6 = protocol2 | gomilter.OptNoUnknown | gomilter.OptNoData |
		gomilter.OptNoConnReply | gomilter.OptNoHeloReply | gomilter.OptNoMailReply | gomilter.OptNoRcptReply |
		gomilter.OptNoHeaderReply | gomilter.OptNoEOHReply | gomilter.OptNoBodyReply | gomilter.OptHeaderLeadingSpace
)

// connect reaches a milter and agrees with it on what is spoken: version 6, or
// what older ones know, which is remembered.
func (f *Filter) connect(ctx context.Context, address string) (*gomilter.ClientSession, func(), error) {
	_, old := f.old.Load(address)
	for {
		conn, err := link.Dial(ctx, address, maxAnswerBytes)
		if err != nil {
			return nil, nil, err
		}
		opts := gomilter.ClientOptions{
			Dialer: dialed{conn}, ReadTimeout: f.opt.Timeout, WriteTimeout: f.opt.Timeout,
			ActionMask: actions6, ProtocolMask: protocol6,
		}
		if old {
			opts.ActionMask, opts.ProtocolMask = actions2, protocol2
		}
		session, err := gomilter.NewClientWithOptions("", "", opts).Session()
		if err == nil {
			return session, func() { _ = conn.Close() }, nil
		}
		_ = conn.Close() // the library forgets it
		if old || !errors.Is(err, gomilter.ErrUnsupportedMilterVersion) {
			f.old.Delete(address) // it may be newer next time
			return nil, nil, err
		}
		old = true
		f.old.Store(address, struct{}{})
	}
}

// dialed is a Dialer for the library that has dialed already: it knows neither
// contexts nor bounds.
type dialed struct{ conn net.Conn }

func (d dialed) Dial(string, string) (net.Conn, error) { return d.conn, nil }

// talk is one message brought to one milter. Its steps return the action that
// ends the talk; nil goes on.
type talk struct {
	session *gomilter.ClientSession
	opt     Options
	env     *smtp.Envelope
}

// macros tells those that have a value.
func (t *talk) macros(code gomilter.Code, kv ...string) error {
	told := kv[:0:0]
	for i := 0; i+1 < len(kv); i += 2 {
		if v := cstring(kv[i+1]); v != "" {
			told = append(told, kv[i], v)
		}
	}
	return t.session.Macros(code, told...)
}

func (t *talk) envelope() (*gomilter.Action, error) {
	c := t.env.Client
	addr := c.Addr.Addr().Unmap().WithZone("")
	ip, family, port := "", gomilter.FamilyUnknown, uint16(0)
	if addr.IsValid() {
		ip, family, port = addr.String(), gomilter.FamilyInet, c.Addr.Port()
		if addr.Is6() {
			family = gomilter.FamilyInet6
		}
	}
	name, ptr := cstring(c.ReverseName), cstring(c.ReverseName)
	if name == "" {
		name, ptr = "["+ip+"]", "unknown"
	}
	version, cipher, _ := strings.Cut(c.TLS, " ")
	version = strings.Replace(version, "TLS1", "TLSv1", 1)
	user, authType := c.User, ""
	if user != "" {
		authType = "PLAIN"
	}
	steps := []func() (*gomilter.Action, error){
		func() (*gomilter.Action, error) {
			err := t.macros(gomilter.CodeConn, "j", t.opt.Hostname, "{daemon_name}", t.opt.Daemon, "v", t.opt.Version,
				"_", name+" ["+ip+"]", "{client_addr}", ip, "{client_name}", name, "{client_port}", strconv.Itoa(int(port)), "{client_ptr}", ptr)
			if err != nil {
				return nil, err
			}
			return t.session.Conn(name, family, port, ip)
		},
		func() (*gomilter.Action, error) {
			if err := t.macros(gomilter.CodeHelo, "{tls_version}", version, "{cipher}", cipher); err != nil {
				return nil, err
			}
			return t.session.Helo(cstring(c.HELO))
		},
		func() (*gomilter.Action, error) {
			err := t.macros(gomilter.CodeMail, "i", t.env.ID, "{auth_authen}", user, "{auth_type}", authType,
				"{mail_addr}", t.env.Sender, "{mail_host}", smtp.Domain(t.env.Sender), "{mail_mailer}", "smtp")
			if err != nil {
				return nil, err
			}
			return t.session.Mail(cstring(t.env.Sender), t.mailArgs())
		},
	}
	for _, step := range steps {
		if act, err := step(); err != nil || act.Code != gomilter.ActContinue {
			return act, err
		}
	}
	return t.recipients()
}

func (t *talk) mailArgs() []string {
	var args []string
	if t.env.Body != "" {
		args = append(args, "BODY="+cstring(t.env.Body))
	}
	if t.env.SMTPUTF8 {
		args = append(args, "SMTPUTF8")
	}
	return args
}

// recipients tells all of them. They have been answered already: only a refusal
// of every one of them counts.
func (t *talk) recipients() (*gomilter.Action, error) {
	var refused *gomilter.Action
	taken := len(t.env.Recipients) == 0
	for _, r := range t.env.Recipients {
		err := t.macros(gomilter.CodeRcpt, "{rcpt_addr}", r.Address, "{rcpt_host}", smtp.Domain(r.Address), "{rcpt_mailer}", "smtp")
		if err != nil {
			return nil, err
		}
		act, err := t.session.Rcpt(cstring(r.Address), nil)
		if err != nil {
			return nil, err
		}
		switch act.Code {
		case gomilter.ActContinue:
			taken = true
		case gomilter.ActReject, gomilter.ActTempFail, gomilter.ActReplyCode:
			// Of several refusals the mildest counts: 4xx before 5xx.
			if refused == nil || stern(refused) && !stern(act) {
				refused = act
			}
		case gomilter.ActAccept, gomilter.ActDiscard, gomilter.ActSkip:
			return act, nil
		default:
			return act, nil
		}
	}
	if !taken {
		return refused, nil
	}
	return nil, nil
}

func stern(a *gomilter.Action) bool {
	return a.Code == gomilter.ActReject || a.Code == gomilter.ActReplyCode && a.SMTPCode >= 500
}

func (t *talk) header(h *header) (*gomilter.Action, error) {
	lead := t.session.ProtocolOption(gomilter.OptHeaderLeadingSpace)
	if err := t.macros(gomilter.CodeHeader, "i", t.env.ID); err != nil {
		return nil, err
	}
	for _, f := range h.fields {
		if f.gone {
			continue
		}
		value := f.value
		if !lead {
			value = strings.TrimPrefix(value, " ")
		}
		act, err := t.session.HeaderField(f.name, value)
		if err != nil || act.Code != gomilter.ActContinue {
			return act, err
		}
	}
	if err := t.macros(gomilter.CodeEOH, "i", t.env.ID); err != nil {
		return nil, err
	}
	act, err := t.session.HeaderEnd()
	if err != nil || act.Code != gomilter.ActContinue {
		return act, err
	}
	return nil, nil
}

// body tells the body, all size bytes of it.
func (t *talk) body(r io.Reader, size int64) (*gomilter.Action, error) {
	buf := make([]byte, chunkBytes)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			act, serr := t.session.BodyChunk(buf[:n])
			if serr != nil || act.Code != gomilter.ActContinue {
				return act, serr
			}
		}
		size -= int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			if size != 0 {
				return nil, fmt.Errorf("read message: %d bytes are missing: %w", size, io.ErrUnexpectedEOF)
			}
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
	}
}

func (t *talk) end() ([]gomilter.ModifyAction, *gomilter.Action, error) {
	if err := t.macros(gomilter.CodeEOB, "i", t.env.ID); err != nil {
		return nil, nil, err
	}
	return t.session.End()
}

// cstring keeps a client's words within one string of the protocol.
func cstring(s string) string {
	const maxBytes = 2048
	if len(s) > maxBytes {
		s = s[:maxBytes]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, s)
}
