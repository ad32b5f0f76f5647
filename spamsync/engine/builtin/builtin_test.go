package builtin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"understudy/smtp"
	"understudy/spamsync"
)

// zoneResolver is DNS from tables. Names that are not there do not exist; what is
// in hangs never answers.
type zoneResolver struct {
	txt   map[string][]string
	ip    map[string]string
	hangs map[string]bool

	mu    sync.Mutex
	asked map[string]int
}

func (z *zoneResolver) ask(ctx context.Context, name string) error {
	name = strings.TrimSuffix(name, ".")
	z.mu.Lock()
	if z.asked == nil {
		z.asked = map[string]int{}
	}
	z.asked[name]++
	z.mu.Unlock()
	if z.hangs[name] {
		<-ctx.Done()
		return &net.DNSError{Err: "timeout", Name: name, IsTimeout: true, IsTemporary: true}
	}
	return nil
}

func notFound(name string) error {
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (z *zoneResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if err := z.ask(ctx, name); err != nil {
		return nil, err
	}
	if t, ok := z.txt[strings.TrimSuffix(name, ".")]; ok {
		return t, nil
	}
	return nil, notFound(name)
}

func (z *zoneResolver) LookupMX(context.Context, string) ([]*net.MX, error) {
	return nil, notFound("mx")
}

func (z *zoneResolver) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	if err := z.ask(ctx, name); err != nil {
		return nil, err
	}
	if a, ok := z.ip[name]; ok {
		return []net.IPAddr{{IP: net.ParseIP(a)}}, nil
	}
	return nil, notFound(name)
}

func (z *zoneResolver) LookupAddr(context.Context, string) ([]string, error) {
	return nil, notFound("ptr")
}

// alarms remembers what is raised.
type alarms struct {
	mu     sync.Mutex
	raised map[string]string
}

func (a *alarms) Raise(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.raised == nil {
		a.raised = map[string]string{}
	}
	a.raised[key] = text
}

func (a *alarms) Clear(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.raised, key)
}

var received = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func envelope() *smtp.Envelope {
	return &smtp.Envelope{
		ID: "q1", Received: received, Sender: "a@good.example", Recipients: []smtp.Recipient{{Address: "b@primary.example"}},
		Client: smtp.Client{Addr: netip.MustParseAddrPort("192.0.2.7:25"), HELO: "mx.good.example", ReverseName: "mx.good.example"},
	}
}

// letter is a message with nothing wrong but what is put into it.
func letter(change ...string) string {
	s := "From: A <a@good.example>\r\nTo: b@primary.example\r\nSubject: lunch\r\nDate: Tue, 24 Nov 2026 11:59:00 +0000\r\n" +
		"Message-ID: <1@good.example>\r\nMIME-Version: 1.0\r\n\r\nShall we have lunch at noon?\r\n"
	return strings.NewReplacer(change...).Replace(s)
}

type option func(*Config, *Deps)

func newFilter(tb testing.TB, opts ...option) *Filter {
	tb.Helper()
	c, d := DefaultConfig(), Deps{Hostname: "mx2.primary.example", Domains: []string{"Primary.example"}, State: spamsync.NewMemory(nil)}
	for _, o := range opts {
		o(&c, &d)
	}
	f, err := New(c, d)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func explain(tb testing.TB, f *Filter, env *smtp.Envelope, message string) Report {
	tb.Helper()
	r, err := f.Explain(tb.Context(), env, strings.NewReader(message))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func symbols(r Report) []string {
	var out []string
	for _, s := range r.Findings {
		out = append(out, s.Name)
	}
	return out
}

func TestSymbols(t *testing.T) {
	t.Parallel()
	f := newFilter(t)
	if r := explain(t, f, envelope(), letter()); len(r.Findings) != 0 || r.Verdict.Action != smtp.Accept || r.Verdict.Score != 0 {
		t.Fatalf("a clean message: %+v", r.Findings)
	}
	client := func(change func(*smtp.Client)) func(*smtp.Envelope) {
		return func(e *smtp.Envelope) { change(&e.Client) }
	}
	attachment := func(name, content string) string {
		return letter("MIME-Version: 1.0\r\n\r\nShall", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nShall",
			"noon?\r\n", "noon?\r\n--b\r\nContent-Disposition: attachment; filename=\""+name+"\"\r\n\r\n"+content+"\r\n--b--\r\n")
	}
	html := func(text string) string {
		return letter("MIME-Version: 1.0\r\n\r\nShall", "Content-Type: text/html\r\n\r\nShall", "noon?", "noon? "+text)
	}
	for _, tc := range []struct {
		name    string
		env     func(*smtp.Envelope)
		message string
		want    []string
	}{
		{"gtube", nil, letter("noon?", gtube), []string{"GTUBE"}},
		{"helo is an address", client(func(c *smtp.Client) { c.HELO = "192.0.2.7" }), letter(), []string{"HELO_BARE_IP"}},
		{"helo is its literal", client(func(c *smtp.Client) { c.HELO = "[192.0.2.7]" }), letter(), nil},
		{"helo is another literal", client(func(c *smtp.Client) { c.HELO = "[192.0.2.9]" }), letter(), []string{"HELO_BARE_IP"}},
		{"helo is us", client(func(c *smtp.Client) { c.HELO = "MX2.primary.example." }), letter(), []string{"HELO_OURS"}},
		{"helo is our domain", client(func(c *smtp.Client) { c.HELO = "primary.example" }), letter(), []string{"HELO_OURS"}},
		{"helo is a word", client(func(c *smtp.Client) { c.HELO = "localhost" }), letter(), []string{"HELO_NOT_FQDN"}},
		{"no helo, no name", client(func(c *smtp.Client) { c.HELO, c.ReverseName = "", "" }), letter(), []string{"HELO_MISSING", "RDNS_NONE"}},
		{"dial-up", client(func(c *smtp.Client) { c.ReverseName = "ip-192-0-2-7.pool.isp.example" }), letter(), []string{"RDNS_DYNAMIC"}},
		{"numbered mail server", client(func(c *smtp.Client) { c.ReverseName = "mail-192-0-2-7.isp.example" }), letter(), nil},
		{"authenticated user", client(func(c *smtp.Client) { c.HELO, c.ReverseName, c.User = "laptop", "", "u" }), letter(), nil},
		{"the other understudy", client(func(c *smtp.Client) { c.HELO, c.ReverseName, c.Peer = "x", "", true }), letter(), nil},
		{"header is bare", nil, "X: y\r\n\r\ntext here\r\n", []string{"MISSING_DATE", "MISSING_FROM", "MISSING_MID", "MISSING_SUBJECT", "MISSING_TO"}},
		{"two From", nil, "From: a@good.example\r\n" + letter(), []string{"MULTIPLE_FROM"}},
		{"two subjects", nil, "Subject: x\r\n" + letter(), []string{"DUPLICATE_HEADER"}},
		{"shouting", nil, letter("lunch\r\n", "MAKE MONEY FAST\r\n"), []string{"SUBJ_ALL_CAPS"}},
		{"needless encoding", nil, letter("Subject: lunch", "Subject: =?utf-8?q?lunch?="), []string{"SUBJ_EXCESS_ENCODED"}},
		{"future", nil, letter("24 Nov", "29 Nov"), []string{"DATE_IN_FUTURE"}},
		{"past", nil, letter("24 Nov 2026", "24 Nov 2020"), []string{"DATE_IN_PAST"}},
		{"no date", nil, letter("Tue, 24 Nov 2026 11:59:00 +0000", "yesterday"), []string{"INVALID_DATE"}},
		{"message id", nil, letter("<1@good.example>", "1"), []string{"INVALID_MSGID"}},
		{"spoofed name", nil, letter("A <a@", `"boss@primary.example" <a@`), []string{"SPOOF_DISPLAY_NAME"}},
		{"own address as name", nil, letter("A <a@", `"a@mail.good.example" <a@`), nil},
		{"other sender", func(e *smtp.Envelope) { e.Sender = "x@other.example" }, letter(), []string{"FROM_NEQ_ENVFROM"}},
		{"reply elsewhere", nil, "Reply-To: x@other.example\r\n" + letter(), []string{"REPLYTO_NEQ_FROM_DOM"}},
		{"html", nil, html(`<a href="https://evil.example/">https://bank.example/</a><form action="http://10.0.0.1/"></form><script>1</script><p style="display:none">x</p>`), []string{"HTML_FORM", "HTML_HIDDEN_TEXT", "HTML_ONLY", "HTML_SCRIPT", "URL_MISMATCH", "URL_NUMERIC"}},
		{"userinfo", nil, letter("noon?", "http://bank.example@evil.example/"), []string{"URL_USERINFO"}},
		{"empty", nil, letter("Shall we have lunch at noon?", ""), []string{"EMPTY_BODY"}},
		{"program", nil, attachment("x.exe", "MZ"), []string{"ATTACH_EXECUTABLE"}},
		{"two extensions", nil, attachment("invoice.pdf .scr", "x"), []string{"ATTACH_DOUBLE_EXTENSION", "ATTACH_EXECUTABLE"}},
		{"disguised", nil, attachment("photo.jpg", "MZ\x90"), []string{"ATTACH_DISGUISED"}},
		{"macro", nil, attachment("a.DOCM", "x"), []string{"ATTACH_MACRO"}},
		{"archive", nil, attachment("a.zip", "PK\x03\x04"), []string{"ATTACH_ARCHIVE"}},
		{"program in archive", nil, attachment("a.exe.zip", "PK\x03\x04"), []string{"ATTACH_ARCHIVE", "ATTACH_DOUBLE_EXTENSION"}},
		{"html in a file", nil, attachment("login.HTML", "x"), []string{"ATTACH_HTML"}},
		{"document", nil, attachment("a.v1.2.pdf", "%PDF"), nil},
		{"broken mime", nil, letter("MIME-Version: 1.0", "Content-Type: multipart/mixed"), []string{"MIME_NO_BOUNDARY"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			env := envelope()
			if tc.env != nil {
				tc.env(env)
			}
			r := explain(t, f, env, tc.message)
			if diff := cmp.Diff(tc.want, symbols(r)); diff != "" {
				t.Errorf("%s\n%+v", diff, r.Findings)
			}
			var sum float64
			for i, s := range r.Verdict.Symbols {
				sum += s.Score
				if s != (smtp.Symbol{Name: r.Findings[i].Name, Score: r.Findings[i].Score}) {
					t.Errorf("%+v and %+v", s, r.Findings[i])
				}
			}
			if tc.name != "gtube" && round(sum) != r.Verdict.Score {
				t.Errorf("sum %v, score %v", sum, r.Verdict.Score)
			}
		})
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		score  float64
		want   smtp.Action
		spam   bool
		action string
	}{
		{-3, smtp.Accept, false, "accept"},
		{3.999, smtp.Accept, false, "accept"},
		{4, smtp.Defer, false, "defer"},
		{6, smtp.Defer, false, "defer"},
		{14.9, smtp.Defer, false, "defer"},
		{15, smtp.Reject, false, "reject"},
	} {
		state := spamsync.NewMemory(nil)
		now := received
		f := newFilter(t, func(c *Config, d *Deps) {
			c.Scores = map[string]float64{"MISSING_MID": tc.score}
			d.State, d.Greylist, d.Now = state, spamsync.NewGreylist(state, c.Greylist, nil, nil), func() time.Time { return now }
		})
		message := letter("Message-ID: <1@good.example>\r\n", "")
		v, err := f.Check(t.Context(), envelope(), strings.NewReader(message))
		if err != nil || v.Action != tc.want || v.Spam != tc.spam || actionName(v) != tc.action || v.Score != tc.score || v.Required != 15 {
			t.Errorf("score %v: %+v, %v", tc.score, v, err)
		}
		if v.Action != smtp.Defer {
			continue
		}
		if v.Code != 451 || v.Enhanced != "4.7.1" || !slices.Contains(v.Symbols, smtp.Symbol{Name: symGreylist}) {
			t.Errorf("score %v: %+v", tc.score, v)
		}
		now = now.Add(5 * time.Minute)
		v, err = f.Check(t.Context(), envelope(), strings.NewReader(message))
		if err != nil || v.Action != smtp.Accept || v.Spam != (tc.score >= 6) {
			t.Errorf("score %v, second time: %+v, %v", tc.score, v, err)
		}
	}
	// The test message is refused whatever else is said of it.
	f := newFilter(t, func(c *Config, _ *Deps) { c.Scores = map[string]float64{"MISSING_MID": -50} })
	v, err := f.Check(t.Context(), envelope(), strings.NewReader(letter("noon?", gtube, "Message-ID: <1@good.example>\r\n", "")))
	if err != nil || v.Action != smtp.Reject || v.Score != 15 {
		t.Errorf("gtube: %+v, %v", v, err)
	}
}

// TestGreylistWithoutState: while no record can be written, a grey sender still
// gets in.
func TestGreylistWithoutState(t *testing.T) {
	t.Parallel()
	state, now := spamsync.NewMemory(nil), received
	state.Fail(spamsync.ErrAway, spamsync.ErrReadOnly)
	f := newFilter(t, func(c *Config, d *Deps) {
		c.Scores = map[string]float64{"MISSING_MID": 5}
		d.State, d.Greylist, d.Now = state, spamsync.NewGreylist(state, c.Greylist, nil, nil), func() time.Time { return now }
	})
	message := letter("Message-ID: <1@good.example>\r\n", "")
	for i, want := range []smtp.Action{smtp.Defer, smtp.Defer, smtp.Accept, smtp.Accept} {
		v, err := f.Check(t.Context(), envelope(), strings.NewReader(message))
		if err != nil || v.Action != want {
			t.Errorf("attempt %d: %+v, %v", i, v, err)
		}
		now = now.Add(3 * time.Minute)
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	a := &alarms{}
	z := &zoneResolver{ip: map[string]string{
		"7.2.0.192.bl.example":   "127.0.0.4",
		"7.2.0.192.two.example":  "127.0.0.2",
		"7.2.0.192.err.example":  "127.255.255.254",
		"7.2.0.192.gone.example": "203.0.113.80",
		"spam.example.uri.exam":  "127.0.0.2",
		"9.0.0.10.uri.exam":      "127.0.0.2",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example": "127.0.0.4",
	}, hangs: map[string]bool{"7.2.0.192.slow.example": true}}
	f := newFilter(t, func(c *Config, d *Deps) {
		d.Resolver, d.Alarms = z, a
		c.DNSTimeout = 300 * time.Millisecond
		c.DNSBL = []ZoneConfig{
			{Zone: "bl.example", Symbol: "BL_A", Score: 4, Codes: []string{"127.0.0.4"}},
			{Zone: "bl.example", Symbol: "BL_B", Score: 2, Codes: []string{"127.0.0.8/29"}},
			{Zone: "two.example.", Symbol: "BL_TWO", Score: 1},
			{Zone: "err.example", Symbol: "BL_ERR", Score: 9},
			{Zone: "gone.example", Symbol: "BL_GONE", Score: 9},
			{Zone: "slow.example", Symbol: "BL_SLOW", Score: 9},
		}
		c.URIBL = []ZoneConfig{{Zone: "uri.exam", Symbol: "URI_A", Score: 3}}
	})
	message := letter("noon?", "http://www.deep.spam.example/x http://a.spam.example/ http://10.0.0.9/ http://fine.example/")
	start := time.Now()
	r := explain(t, f, envelope(), message)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("a slow list took %v", d)
	}
	got := map[string]float64{}
	for _, s := range r.Findings {
		if strings.HasPrefix(s.Name, "BL_") || strings.HasPrefix(s.Name, "URI_") {
			got[s.Name] = s.Score
		}
	}
	if diff := cmp.Diff(map[string]float64{"BL_A": 4, "BL_TWO": 1, "URI_A": 3}, got); diff != "" {
		t.Error(diff)
	}
	if len(a.raised) != 2 || a.raised["dnsbl:err.example"] == "" || a.raised["dnsbl:gone.example"] == "" {
		t.Errorf("alarms %v", a.raised)
	}
	if n := z.asked["spam.example.uri.exam"]; n != 1 {
		t.Errorf("one domain was asked for %d times", n)
	}
	explain(t, f, envelope(), message)
	if n := z.asked["7.2.0.192.two.example"]; n != 1 {
		t.Errorf("the cache asked %d times", n)
	}
	// The list is well again.
	f.lists.health("err.example", "")
	if a.raised["dnsbl:err.example"] != "" {
		t.Error("the alarm stays")
	}
	v6 := envelope()
	v6.Client.Addr = netip.MustParseAddrPort("[2001:db8::1]:25")
	if r := explain(t, f, v6, letter()); !slices.Contains(symbols(r), "BL_A") {
		t.Errorf("IPv6: %v", symbols(r))
	}
	private := envelope()
	private.Client.Addr = netip.MustParseAddrPort("10.0.0.1:25")
	z.ip["1.0.0.10.bl.example"] = "127.0.0.4"
	if r := explain(t, f, private, letter()); slices.Contains(symbols(r), "BL_A") {
		t.Error("a private address was looked up")
	}
}

func TestSenderSymbols(t *testing.T) {
	t.Parallel()
	z := &zoneResolver{txt: map[string][]string{
		"good.example":          {"v=spf1 ip4:192.0.2.7 -all"},
		"_dmarc.good.example":   {"v=DMARC1; p=reject"},
		"bad.example":           {"v=spf1 -all"},
		"_dmarc.bad.example":    {"v=DMARC1; p=reject"},
		"_dmarc.soft.example":   {"v=DMARC1; p=quarantine"},
		"_dmarc.watch.example":  {"v=DMARC1; p=none"},
		"_dmarc.sample.example": {"v=DMARC1; p=reject; pct=0"},
	}}
	f := newFilter(t, func(c *Config, d *Deps) { d.Resolver = z; c.ReceivedSPF = true })
	for domain, want := range map[string][]string{
		"good.example":   {"ARC_NA", "DMARC_POLICY_ALLOW", "R_DKIM_NA", "R_SPF_ALLOW"},
		"bad.example":    {"ARC_NA", "DMARC_POLICY_REJECT", "R_DKIM_NA", "R_SPF_FAIL"},
		"soft.example":   {"ARC_NA", "DMARC_POLICY_QUARANTINE", "R_DKIM_NA", "R_SPF_NA"},
		"watch.example":  {"ARC_NA", "DMARC_POLICY_SOFTFAIL", "R_DKIM_NA", "R_SPF_NA"},
		"sample.example": {"ARC_NA", "DMARC_POLICY_QUARANTINE", "R_DKIM_NA", "R_SPF_NA"},
		"none.example":   {"ARC_NA", "DMARC_NA", "R_DKIM_NA", "R_SPF_NA"},
	} {
		env := envelope()
		env.Sender = "a@" + domain
		r := explain(t, f, env, letter("good.example", domain))
		if diff := cmp.Diff(want, symbols(r)); diff != "" {
			t.Errorf("%s: %s", domain, diff)
		}
		h := r.Verdict.Header
		if !strings.HasPrefix(h, "Received-SPF: ") || !strings.Contains(h, "\r\nAuthentication-Results: mx2.primary.example;\r\n") ||
			!strings.Contains(h, "header.from="+domain) || !strings.HasSuffix(h, "\r\n") || strings.Contains(h, "\r\n\r\n") {
			t.Errorf("%s: header %q", domain, h)
		}
	}
	// A signature and a chain that cannot be checked.
	r := explain(t, f, envelope(), "DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=s; h=from; bh=AA==; b=AA==\r\nARC-Seal: i=1; cv=none\r\n"+letter())
	for _, want := range []string{"R_DKIM_PERMFAIL", "ARC_REJECT"} {
		if !slices.Contains(symbols(r), want) {
			t.Errorf("lacks %s: %v", want, symbols(r))
		}
	}
}

func TestRateAndReputation(t *testing.T) {
	t.Parallel()
	state := spamsync.NewMemory(nil)
	f := newFilter(t, func(c *Config, d *Deps) {
		d.State = state
		c.Ratelimit.Messages = 30
		c.Scores = map[string]float64{"MISSING_SUBJECT": 20}
	})
	check := func(env *smtp.Envelope, message string) smtp.Verdict {
		t.Helper()
		v, err := f.Check(t.Context(), env, strings.NewReader(message))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for range 10 {
		check(envelope(), letter())
	}
	if r := explain(t, f, envelope(), letter()); !slices.Contains(symbols(r), symRepHam) || r.Verdict.Score >= 0 {
		t.Errorf("after ten good messages: %+v", r.Findings)
	}
	for range 20 {
		if v := check(envelope(), letter("Subject", "X")); v.Action != smtp.Reject {
			t.Fatalf("%+v", v)
		}
	}
	before := explain(t, f, envelope(), letter())
	if !slices.Contains(symbols(before), symRatelimited) || before.Verdict.Action != smtp.Defer || before.Verdict.Code != 451 {
		t.Errorf("after thirty: %+v", before.Verdict)
	}
	if diff := cmp.Diff(before, explain(t, f, envelope(), letter())); diff != "" {
		t.Errorf("explaining has effects: %s", diff)
	}
	other := envelope()
	other.Client.Addr = netip.MustParseAddrPort("192.0.2.200:1")
	if r := explain(t, f, other, letter()); !slices.Contains(symbols(r), symRepSpam) || r.Verdict.Action != smtp.Accept {
		t.Errorf("a neighbour: %+v", r.Findings)
	}
	trusted := newFilter(t, func(c *Config, d *Deps) {
		d.State = state
		c.Ratelimit.Messages = 30
		c.Trusted = []string{"192.0.2.0/24"}
	})
	if r := explain(t, trusted, envelope(), letter()); r.Verdict.Action != smtp.Accept || len(r.Findings) > 0 {
		t.Errorf("trusted: %+v", r.Findings)
	}
}

// TestStateAway: without a state the rest judges.
func TestStateAway(t *testing.T) {
	t.Parallel()
	state := spamsync.NewMemory(nil)
	state.Fail(spamsync.ErrAway, spamsync.ErrAway)
	f := newFilter(t, func(c *Config, d *Deps) { d.State = state; c.Ratelimit.Messages = 1 })
	v, err := f.Check(t.Context(), envelope(), strings.NewReader(letter("noon?", gtube)))
	if err != nil || v.Action != smtp.Reject {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	f := newFilter(t, func(_ *Config, d *Deps) { d.Resolver = &zoneResolver{hangs: map[string]bool{"good.example": true}} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v, err := f.Check(ctx, envelope(), strings.NewReader(letter())); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %+v, %v", v, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if v, err := f.Check(ctx, envelope(), strings.NewReader(letter())); err == nil {
		t.Errorf("cancelled within: %+v", v)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	for _, body := range []io.ReadSeeker{failing{strings.NewReader(letter()), true}, failing{strings.NewReader(letter()), false}} {
		if v, err := f.Check(t.Context(), envelope(), body); err == nil {
			t.Errorf("unreadable: %+v", v)
		}
	}
}

// failing cannot be rewound, or not be read.
type failing struct {
	*strings.Reader
	seek bool
}

func (f failing) Seek(o int64, w int) (int64, error) {
	if f.seek {
		return 0, errors.New("broken")
	}
	return f.Reader.Seek(o, w)
}

func (f failing) Read(p []byte) (int, error) {
	n, _ := f.Reader.Read(p[:min(len(p), 10)])
	return n, errors.New("broken")
}

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Thresholds.Reject = 1
	c.Scores = map[string]float64{"NO_SUCH": 1}
	c.DNSBL = []ZoneConfig{{Zone: "nodots", Symbol: "lower"}, {Zone: "a.example", Symbol: "GTUBE", Codes: []string{"x"}}}
	c.Trusted = []string{"everybody"}
	c.DNSTimeout = 0
	c.Greylist.Window = 0
	err := c.Validate()
	if err == nil {
		t.Fatal("no fault")
	}
	for _, want := range []string{"thresholds:", "NO_SUCH", "dnsbl[0]: zone:", "dnsbl[0]", "symbol:", "dnsbl[1]: symbol: GTUBE is taken", "codes:", "trusted:", "dns_timeout:", "greylist: window:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("lacks %q:\n%v", want, err)
		}
	}
	c = DefaultConfig()
	c.DNSBL = []ZoneConfig{{Zone: "a.example", Symbol: "BL_A", Score: 1}}
	c.Scores = map[string]float64{"BL_A": 2, "GTUBE": 1}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	f := newFilter(t, func(_ *Config, d *Deps) { d.Resolver = &zoneResolver{} })
	want := explain(t, f, envelope(), letter("noon?", "http://10.1.1.1/"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 10 {
				got, err := f.Explain(t.Context(), envelope(), strings.NewReader(letter("noon?", "http://10.1.1.1/")))
				if err != nil || !cmp.Equal(got, want) {
					t.Errorf("worker %d: %s, %v", i, cmp.Diff(want, got), err)
				}
			}
		})
	}
	wg.Wait()
	if len(want.Findings) == 0 || fmt.Sprint(want) == "" {
		t.Error("nothing was found")
	}
}
