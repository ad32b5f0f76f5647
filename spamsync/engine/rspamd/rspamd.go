package rspamd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"understudy/smtp"
	"understudy/spamsync/engine/link"
)

// engineName is what verdicts are signed with.
const engineName = "rspamd"

// Options say where Rspamd is and how it is asked.
type Options struct {
	// URLs are the normal or proxy workers, "http://127.0.0.1:11333" or
	// "unix:///run/rspamd/normal.sock", the preferred one first.
	URLs []string
	// Timeout bounds one Check, all servers together.
	Timeout time.Duration
	// Rest is how long a server that failed is asked last.
	Rest time.Duration
	// Hostname is our name, for Authentication-Results.
	Hostname string
	// PasswordFile holds the password for a worker that wants one; it is read for
	// every connection, so that it can be changed.
	PasswordFile string
	// AllRules asks for every rule even where the verdict is certain.
	AllRules bool
	// Settings is the id of the settings to apply (Rspamd's header Settings-ID).
	Settings string
	// MaxAnswerBytes bounds the answer; 0 is 8 MiB.
	MaxAnswerBytes int64
	// RoundTripper is for tests; nil is a client of its own.
	RoundTripper http.RoundTripper
}

// Filter is an smtp.Filter. It may be used concurrently.
type Filter struct {
	opt     Options
	servers *link.Servers
	http    http.RoundTripper
	idle    func()
}

var _ smtp.Filter = (*Filter)(nil)

// New checks opt. It dials nothing.
func New(opt Options) (*Filter, error) {
	for _, u := range opt.URLs {
		if err := CheckURL(u); err != nil {
			return nil, err
		}
	}
	if opt.Timeout <= 0 {
		return nil, errors.New("rspamd needs a timeout")
	}
	if opt.MaxAnswerBytes <= 0 {
		opt.MaxAnswerBytes = 8 << 20
	}
	servers, err := link.NewServers(opt.URLs, opt.Rest)
	if err != nil {
		return nil, err
	}
	f := &Filter{opt: opt, servers: servers, http: opt.RoundTripper, idle: func() {}}
	if f.http == nil {
		t := &http.Transport{
			DialContext:            dial,
			MaxIdleConns:           64,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        time.Minute,
			DisableCompression:     true, // the answer's bound counts what is unpacked
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    opt.Timeout,
			MaxResponseHeaderBytes: 64 << 10,
			WriteBufferSize:        64 << 10,
		}
		f.http, f.idle = t, t.CloseIdleConnections
	}
	return f, nil
}

// CheckURL says whether New takes u.
func CheckURL(u string) error {
	if strings.HasPrefix(u, "unix:") || strings.HasPrefix(u, "/") {
		_, _, err := link.Parse(u)
		return err
	}
	p, err := url.Parse(u)
	if err != nil {
		return errors.New("malformed URL") // err quotes it with its password
	}
	if (p.Scheme != "http" && p.Scheme != "https") || p.Host == "" || p.RawQuery != "" || p.Fragment != "" {
		return fmt.Errorf("%q is not http://host:port, https://host:port or unix:///path", link.Redact(u))
	}
	return nil
}

// Close ends idle connections.
func (f *Filter) Close() error {
	f.idle()
	return nil
}

// socketHost marks the host of a URL that stands for a unix socket.
const socketHost = ".socket.invalid"

// target turns a server's name into the URL to ask.
func target(server string) (string, error) {
	if strings.HasPrefix(server, "unix:") || strings.HasPrefix(server, "/") {
		_, path, err := link.Parse(server)
		return fmt.Sprintf("http://%x%s/checkv2", path, socketHost), err
	}
	return strings.TrimRight(server, "/") + "/checkv2", nil
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if hex, ok := strings.CutSuffix(host, socketHost); ok {
		var path []byte
		if _, err := fmt.Sscanf(hex, "%x", &path); err != nil {
			return nil, fmt.Errorf("decode socket path: %w", err)
		}
		return d.DialContext(ctx, "unix", string(path))
	}
	return d.DialContext(ctx, network, address)
}

// Check implements smtp.Filter.
func (f *Filter) Check(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker) (smtp.Verdict, error) {
	size, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return smtp.Verdict{}, fmt.Errorf("measure message: %w", err)
	}
	header, err := f.header(env)
	if err != nil {
		return smtp.Verdict{}, err
	}
	var a answer
	err = f.servers.Try(ctx, f.opt.Timeout, func(ctx context.Context, server string) error {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("rewind message: %w", err)
		}
		var err error
		a, err = f.ask(ctx, server, header, body, size)
		return err
	})
	if err != nil {
		return smtp.Verdict{}, fmt.Errorf("ask rspamd: %w", err)
	}
	return a.verdict(func() ([]smtp.HeaderField, error) {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		return smtp.ReadHeader(body, 4<<20)
	})
}

// ask posts the message to one server.
func (f *Filter) ask(ctx context.Context, server string, header http.Header, body io.Reader, size int64) (answer, error) {
	to, err := target(server)
	if err != nil {
		return answer{}, err
	}
	// The transport may still read the body when an answer came early; what it
	// reads must be over when Check returns.
	pipe := &fence{r: io.LimitReader(body, size)}
	defer pipe.end()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, io.NopCloser(pipe))
	if err != nil {
		return answer{}, errors.New("malformed URL")
	}
	req.Header, req.ContentLength = header.Clone(), size
	if size == 0 {
		req.Body = http.NoBody
	}
	resp, err := f.http.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, f.opt.MaxAnswerBytes+1))
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	if int64(len(raw)) > f.opt.MaxAnswerBytes {
		return answer{}, link.ErrTooLong
	}
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("status %d: %s", resp.StatusCode, link.Text(string(raw[:min(len(raw), 512)]), 200))
	}
	return parse(raw)
}

// header tells Rspamd what it needs to know of the envelope.
func (f *Filter) header(env *smtp.Envelope) (http.Header, error) {
	h := make(http.Header, 16)
	set := func(name, value string) {
		if value != "" {
			h[name] = append(h[name], field(value))
		}
	}
	if a := env.Client.Addr.Addr(); a.IsValid() {
		set("IP", a.Unmap().WithZone("").String())
	}
	set("Helo", env.Client.HELO)
	// Without a name there is no field: Rspamd takes "unknown" for a name, as it does
	// not from a milter, and would not miss the reverse name.
	set("Hostname", env.Client.ReverseName)
	set("From", "<"+env.Sender+">")
	for _, r := range env.Recipients {
		set("Rcpt", r.Address)
	}
	set("Queue-Id", env.ID)
	set("User", env.Client.User)
	version, cipher, _ := strings.Cut(env.Client.TLS, " ")
	set("TLS-Version", strings.Replace(version, "TLS1", "TLSv1", 1)) // as Postfix and OpenSSL write it
	set("TLS-Cipher", cipher)
	set("MTA-Name", f.opt.Hostname)
	set("MTA-Tag", "understudy")
	set("Settings-ID", f.opt.Settings)
	// "milter" has it say which header changes it wants.
	set("Flags", "milter")
	if f.opt.AllRules {
		set("Pass", "all")
	}
	if f.opt.PasswordFile != "" {
		secret, err := os.ReadFile(f.opt.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read password of rspamd: %w", err)
		}
		set("Password", strings.TrimSpace(string(secret)))
	}
	set("Content-Type", "text/plain")
	set("User-Agent", "understudy")
	return h, nil
}

// field makes a client's words fit for an HTTP header: they must neither end it
// nor keep the message from being judged.
func field(s string) string {
	const maxBytes = 1024
	if len(s) > maxBytes {
		s = s[:maxBytes]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
}
