package engine

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"understudy/integration/require"
	"understudy/smtp"
	"understudy/spamsync/engine/enginetest"
)

// wantLua makes Rspamd do what the message's header asks for, and say what it was
// told of the envelope.
const wantLua = `
rspamd_config:register_symbol{ name = 'WANT', type = 'prefilter', callback = function(task)
  local w = task:get_header('X-Want')
  if w then task:set_pre_result{ action = w, message = 'because of ' .. w, module = 'want' } end
end }
rspamd_config:register_symbol{ name = 'TOLD', type = 'normal', score = 0.5, callback = function(task)
  local rcpts = {}
  for _, r in ipairs(task:get_recipients('smtp') or {}) do table.insert(rcpts, r.addr) end
  local from = (task:get_from('smtp') or {{}})[1] or {}
  local told = { tostring(task:get_from_ip()), tostring(task:get_helo()), tostring(task:get_hostname()), tostring(from.addr),
    table.concat(rcpts, ','), tostring(task:get_queue_id()), tostring(task:get_user()),
    tostring(task:get_request_header('TLS-Version')) }
  task:set_milter_reply({ add_headers = { ['X-Told'] = table.concat(told, ' ') }, remove_headers = { ['X-Gone'] = 0, ['X-Some'] = 2 } })
  return true, 1.0
end }
`

// gtube is the generic test for unsolicited bulk e-mail.
const gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

func realRspamd(t *testing.T) *enginetest.RspamdServer {
	t.Helper()
	require.Command(t, "rspamd")
	if testing.Short() {
		t.Skip("rspamd takes seconds to start")
	}
	return enginetest.StartRspamd(t, enginetest.RspamdConfig{
		Lua: wantLua,
		Local: map[string]string{
			"milter_headers.conf": "use = [\"authentication-results\", \"x-spamd-result\"];\nauthenticated_headers = [\"authentication-results\"];\nskip_authenticated = false;\n",
			"actions.conf":        "quarantine = 50;\ndiscard = 60;\n", // without a threshold they are unknown
			"greylist.conf":       "enabled = false;\n",
			"ratelimit.conf":      "enabled = false;\n",
			"history_redis.conf":  "enabled = false;\n",
		},
	})
}

func setFor(t *testing.T, cfg Config, a *alarms) *Set {
	t.Helper()
	set, err := New(cfg, Deps{
		Hostname: "mx2.example.com", Alarms: a, Logger: quiet(),
		Builtin: &judge{v: smtp.Verdict{Engine: "builtin"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close() })
	return set
}

func TestRealRspamd(t *testing.T) {
	t.Parallel()
	server := realRspamd(t)
	http, proxy := DefaultConfig(), DefaultConfig()
	http.Engine, http.URL = Rspamd, []string{"http://" + server.Normal}
	proxy.Engine, proxy.URL = Milter, []string{server.Proxy}
	t.Run("actions", func(t *testing.T) { realActions(t, http, proxy) })
	t.Run("envelope", func(t *testing.T) { realEnvelope(t, http, proxy) })
	t.Run("100 MiB", func(t *testing.T) { realHuge(t, http) })
	t.Run("failures", func(t *testing.T) { realFailures(t, http, server) })
}

func wanting(action string) string {
	return "From: a@example.org\r\nTo: b@example.com\r\nSubject: hello\r\nDate: Mon, 21 Sep 2026 14:13:20 +0000\r\nMessage-ID: <1@example.org>\r\n" +
		map[bool]string{true: "", false: "X-Want: " + action + "\r\n"}[action == ""] + "\r\nNothing to sell here.\r\n"
}

// The same Rspamd asked over HTTP and as a milter gives the same action.
func realActions(t *testing.T, configs ...Config) {
	t.Helper()
	for _, tc := range []struct {
		want   string
		action smtp.Action
		spam   bool
		code   int
		text   string
	}{
		{"", smtp.Accept, false, 0, ""},
		{"no action", smtp.Accept, false, 0, ""},
		{"add header", smtp.Accept, true, 0, ""},
		{"rewrite subject", smtp.Accept, true, 0, ""},
		{"quarantine", smtp.Quarantine, true, 0, ""},
		{"discard", smtp.Quarantine, true, 0, ""},
		{"soft reject", smtp.Defer, false, 451, "because of soft reject"},
		{"reject", smtp.Reject, true, 554, "because of reject"},
		{gtube, smtp.Reject, true, 554, "Gtube pattern"},
	} {
		message := wanting(tc.want)
		if tc.want == gtube {
			message = wanting("") + gtube + "\r\n"
		}
		for _, cfg := range configs {
			v, err := check(t, setFor(t, cfg, &alarms{}).Filter(), enginetest.Envelope(), message)
			if err != nil {
				t.Errorf("%s: %q: %v", cfg.Engine, tc.want, err)
				continue
			}
			if v.Action != tc.action || tc.code != 0 && (v.Code/100 != tc.code/100 || !strings.Contains(v.Text, tc.text)) {
				t.Errorf("%s: %q: %+v", cfg.Engine, tc.want, v)
			}
			if cfg.Engine == Rspamd && (v.Spam != tc.spam || tc.want == "" && (len(v.Symbols) < 5 || v.Required <= 0)) {
				t.Errorf("%q: %+v", tc.want, v)
			}
			if tc.want == "rewrite subject" {
				if got := edited(t, v, message); !strings.Contains(got, "Subject: *** SPAM *** hello\r\n") || strings.Contains(got, "Subject: hello\r\n") {
					t.Errorf("%s: %q became %q", cfg.Engine, message, got)
				}
			}
		}
	}
}

// edited is the message with the verdict's changes made.
func edited(t *testing.T, v smtp.Verdict, message string) string {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(v.Header)
	if err := smtp.WriteEdited(&b, strings.NewReader(message), v.Edits); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func realEnvelope(t *testing.T, configs ...Config) {
	t.Helper()
	message := "X-Gone: 1\r\nX-Some: 1\r\nX-Gone: 2\r\nX-Some: 2\r\nAuthentication-Results: mx2.example.com; spf=forged\r\nX-Spam: No\r\n" + wanting("")
	for _, cfg := range configs {
		v, err := check(t, setFor(t, cfg, &alarms{}).Filter(), enginetest.Envelope(), message)
		if err != nil || v.Action != smtp.Accept {
			t.Errorf("%s: %+v, %v", cfg.Engine, v, err)
			continue
		}
		got := edited(t, v, message)
		if want := "X-Told: 192.0.2.7 client.example.org client.example.org a@example.org b@example.com,c@example.com 4fXyZ1 user TLSv1.3\r\n"; !strings.Contains(got, want) {
			t.Errorf("%s: told %q", cfg.Engine, got)
		}
		for field, want := range map[string]bool{
			"X-Gone": false, "X-Some: 1": true, "X-Some: 2": false, "spf=forged": false, "X-Spam: No": false,
			"Authentication-Results: mx2.example.com;": true, "X-Spamd-Result: default: False": true,
		} {
			if strings.Contains(got, field) != want {
				t.Errorf("%s: %q is there: %v, want %v: %q", cfg.Engine, field, !want, want, got)
			}
		}
		if !strings.HasSuffix(got, "\r\n\r\nNothing to sell here.\r\n") {
			t.Errorf("%s: the body changed: %q", cfg.Engine, got)
		}
	}
}

// A message too long for Rspamd is refused by it with a status: no verdict, and in
// time.
func realHuge(t *testing.T, cfg Config) {
	t.Helper()
	cfg.OnFailure = UseBuiltin
	head := strings.NewReader(wanting(""))
	body := &joined{head: head, size: int64(head.Len()) + 100<<20}
	v, err := setFor(t, cfg, &alarms{}).Filter().Check(t.Context(), enginetest.Envelope(), body)
	if err != nil || v.Action != smtp.Accept {
		t.Errorf("%+v, %v", v, err)
	}
	t.Logf("100 MiB judged by %s", v.Engine)
}

// joined is a header followed by as many lines as size wants.
type joined struct {
	head     *strings.Reader
	at, size int64
}

func (j *joined) Read(p []byte) (int, error) {
	if j.at < j.head.Size() {
		n, err := j.head.ReadAt(p, j.at)
		j.at += int64(n)
		if n > 0 {
			err = nil
		}
		return n, err
	}
	n := int(min(int64(len(p)), j.size-j.at))
	if n == 0 {
		return 0, io.EOF
	}
	for i := range p[:n] {
		p[i] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"[(j.at+int64(i))%64]
	}
	j.at += int64(n)
	return n, nil
}

func (j *joined) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		j.at = offset
	case io.SeekCurrent:
		j.at += offset
	case io.SeekEnd:
		j.at = j.size + offset
	}
	return j.at, nil
}

// relay stands in front of Rspamd and can be slow, or answer for it.
type relay struct {
	target string
	wait   time.Duration
	answer string
}

func (r relay) start(t *testing.T) string {
	t.Helper()
	return "http://" + enginetest.Listen(t, func(c net.Conn) {
		if r.answer != "" {
			buf := make([]byte, 64<<10)
			_, _ = c.Read(buf)
			_, _ = io.WriteString(c, r.answer)
			return
		}
		var d net.Dialer
		up, err := d.DialContext(t.Context(), "tcp", r.target)
		if err != nil {
			return
		}
		defer func() { _ = up.Close() }()
		stop := context.AfterFunc(t.Context(), func() { _ = up.Close() })
		defer stop()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(up, c)
			_ = up.Close()
		}()
		buf := make([]byte, 64<<10)
		for {
			n, err := up.Read(buf)
			if n > 0 {
				select {
				case <-time.After(r.wait):
				case <-t.Context().Done():
				}
				if _, werr := c.Write(buf[:n]); werr != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		_ = c.Close()
		<-done
	})
}

// Whatever happens to Rspamd, every message gets its outcome within the configured
// time, an alarm says so, and it ends when Rspamd is well again.
func realFailures(t *testing.T, cfg Config, server *enginetest.RspamdServer) {
	t.Helper()
	const limit = 300 * time.Millisecond
	outcome := func(t *testing.T, cfg Config, broken func(bool)) {
		t.Helper()
		for _, policy := range []string{Tempfail, Accept, UseBuiltin} {
			cfg := cfg
			cfg.OnFailure, cfg.Timeout, cfg.Breaker = policy, limit, BreakerConfig{Failures: 3, CoolDown: 100 * time.Millisecond}
			a := &alarms{}
			f := setFor(t, cfg, a).Filter()
			broken(true)
			for i := range 5 {
				began := time.Now()
				v, err := check(t, f, enginetest.Envelope(), wanting(""))
				if d := time.Since(began); d > limit+2*time.Second {
					t.Errorf("%s: message %d took %v", policy, i, d)
				}
				if (err != nil) != (policy == Tempfail) || v.Action != smtp.Accept || policy == UseBuiltin && v.Engine != "builtin" {
					t.Errorf("%s: message %d: %+v, %v", policy, i, v, err)
				}
			}
			if a.text("filter:rspamd") == "" {
				t.Errorf("%s: no alarm", policy)
			}
			broken(false)
			if cfg.URL[0] != "http://"+server.Normal {
				continue
			}
			recovers(t, f, a, policy)
		}
	}
	nothing := func(bool) {}
	t.Run("hung", func(t *testing.T) { outcome(t, cfg, server.Freeze) })
	for name, r := range map[string]relay{
		"slow":     {target: server.Normal, wait: time.Second},
		"nonsense": {answer: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"action\""},
		"500":      {answer: "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"},
	} {
		c := cfg
		c.URL = []string{r.start(t)}
		t.Run(name, func(t *testing.T) { outcome(t, c, nothing) })
	}
	server.Stop()
	c := cfg
	c.URL = []string{"http://" + server.Normal + "/"} // never comes back
	t.Run("stopped", func(t *testing.T) { outcome(t, c, nothing) })
}

// recovers waits until the filter's verdicts are Rspamd's again.
func recovers(t *testing.T, f smtp.Filter, a *alarms, policy string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		v, err := check(t, f, enginetest.Envelope(), wanting(""))
		if err == nil && v.Engine == "rspamd" && len(v.Symbols) > 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: it does not recover: %+v, %v", policy, v, err)
		}
		<-time.After(20 * time.Millisecond)
	}
	if text := a.text("filter:rspamd"); text != "" {
		t.Errorf("%s: the alarm stays: %s", policy, text)
	}
}
