package wire

import (
	"math"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

func TestValidMailbox(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"a@b": true, "a.b+c=d@x-y.example": true, "a..b.@docomo.example": true, `"a b\"c"@x.example`: true,
		"x@[192.0.2.1]": true, "x@[IPv6:2001:db8::1]": true, "x@_dmarc.example": true, "\u00fc@\u00fc.example": true,
		strings.Repeat("x", 200) + "@long.example": true,
		"": false, "a": false, "@b": false, "a@": false, "a@b@c": false, "a b@c": false, "a@b c": false, "a@b..c": false, "a@.b": false,
		"a@b.": false, `"a"b@c`: false, `"a@c`: false, `""x@c`: false, "a@[192.0.2]": false, "a@[2001:db8::1]": false, "a@[IPv6:1.2.3.4]": false,
		"a@[IPv6:fe80::1%eth0]": false, "a<b@c": false, "a\\b@c": false, "a@b\u0085c": false, "a\u0085@b": false, "\xff@b": false, "a@\xff": false,
		"a@" + strings.Repeat("x", 64) + ".example": false, strings.Repeat("x", 1000) + "@b": false, "a@b:c": false, "a@b/c": false,
	} {
		if got := validMailbox(addr); got != want {
			t.Errorf("%q: %v", addr, got)
		}
	}
}

func TestCutPath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		arg, path, params string
		ok                bool
	}{
		{"FROM:<a@b>", "a@b", "", true},
		{"from: <a@b> SIZE=1", "a@b", "SIZE=1", true},
		{"FROM:<>", "", "", true},
		{`FROM:<"x> y"@b>  A=1 `, `"x> y"@b`, "A=1", true},
		{"FROM:<@a,@b.example:c@d>", "c@d", "", true},
		{"FROM:<@a;c@d>", "", "", false},
		{"FROM:<@a,b:c@d>", "", "", false},
		{"FROM <a@b>", "", "", false},
		{"FROM:a@b", "", "", false},
		{"FROM:<a@b", "", "", false},
		{`FROM:<"a@b>`, "", "", false},
		{"FROM:<a@b>SIZE=1", "", "", false},
		{"FRO", "", "", false},
	} {
		path, params, ok := cutPath(c.arg, "FROM:")
		if path != c.path || params != c.params || ok != c.ok {
			t.Errorf("%q: %q %q %v", c.arg, path, params, ok)
		}
	}
}

func TestParams(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int{"": 0, "SIZE=1": 1, "a=b  c": 2, "a=": -1, "=b": -1, "a=1 A=2": -1, "-a=1": -1, "a\u00fc=1": -1, "x=a=b": 1} {
		list, err := splitParams(s)
		if (err != nil) != (want < 0) || err == nil && len(list) != want {
			t.Errorf("%q: %v %v", s, list, err)
		}
	}
	for s, want := range map[string]int64{"0": 0, "10": 10, "9223372036854775807": math.MaxInt64, "99999999999999999999": math.MaxInt64} {
		if n, ok := parseSize(s); !ok || n != want {
			t.Errorf("%q: %d %v", s, n, ok)
		}
	}
	for _, s := range []string{"", "-1", "+1", "1k", "0x1", "999999999999999999999"} {
		if _, ok := parseSize(s); ok {
			t.Errorf("SIZE=%q was taken", s)
		}
	}
	for s, want := range map[string]int{"NEVER": 1, "success,Failure,DELAY": 3, "": 0, "NEVER,DELAY": 0, "DELAY,DELAY": 0, "SUCCESS,": 0, "X": 0} {
		if list, ok := parseNotify(s); ok != (want > 0) || len(list) != want {
			t.Errorf("NOTIFY=%q: %v %v", s, list, ok)
		}
	}
}

func TestXtextAndORCPT(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "plain", "a+b=c d", "\x00\xff", "100%"} {
		if got, err := DecodeXtext(EncodeXtext(s)); err != nil || got != s {
			t.Errorf("%q became %q, %v", s, got, err)
		}
	}
	if got := EncodeXtext("a+b=c"); got != "a+2Bb+3Dc" {
		t.Error(got)
	}
	for _, s := range []string{"+", "+2", "a+2", "+GG", "a=b", "a b", "\u00fc", "a\x01"} {
		if got, err := DecodeXtext(s); err == nil {
			t.Errorf("%q decoded to %q", s, got)
		}
	}
	kind, addr, err := ParseORCPT("RFC822;a+2Bb@x")
	if kind != gosmtp.DSNAddressTypeRFC822 || addr != "a+b@x" || err != nil {
		t.Error(kind, addr, err)
	}
	for _, s := range []string{"", "rfc822", "rfc822;", ";a@b", "rfc822;+00", "utf-8;a+b", `utf-8;\x{D800}`, `utf-8;\x{}`, `utf-8;\x{41`, "utf-8;\xff", "rfc822;+FC", "x;" + strings.Repeat("a", 500)} {
		if kind, addr, err := ParseORCPT(s); err == nil {
			t.Errorf("%q: %q %q", s, kind, addr)
		}
	}
	if s := FormatORCPT(gosmtp.DSNAddressTypeUTF8, "\u00fc+\\@x"); s != `utf-8;\x{FC}\x{2B}\x{5C}@x` {
		t.Error(s)
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	p := newPace(start, 10*time.Second, time.Minute, 100)
	after := func(d time.Duration) time.Time { return start.Add(d) }
	check := func(what string, now, want time.Time) {
		t.Helper()
		if got := p.deadline(now); !got.Equal(want) {
			t.Errorf("%s: deadline %v, want %v", what, got.Sub(start), want.Sub(start))
		}
	}
	check("fresh", start, after(10*time.Second))
	p.progress(4*time.Second, 100) // 4 s spent, 1 s earned
	check("slow", after(4*time.Second), after(11*time.Second))
	p.progress(0, 64<<10) // the credit does not pile up
	check("fast", after(4*time.Second), after(14*time.Second))
	check("total", after(55*time.Second), after(60*time.Second))
	p.cap(after(5*time.Second), 2*time.Second)
	check("capped", after(5*time.Second), after(7*time.Second))
	p.cap(after(5*time.Second), time.Hour)
	check("capped once", after(5*time.Second), after(7*time.Second))
	p = newPace(start, 10*time.Second, time.Hour, 0)
	p.progress(9*time.Second, 1)
	check("without a rate", after(9*time.Second), after(19*time.Second))
}

func TestAppendReply(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 600)
	for _, c := range []struct {
		code     int
		enhanced gosmtp.EnhancedCode
		text     string
		want     string
	}{
		{250, gosmtp.EnhancedCode{2, 1, 5}, "OK", "250 2.1.5 OK\r\n"},
		{250, gosmtp.EnhancedCodeNotSet, "OK", "250 2.0.0 OK\r\n"},
		{250, gosmtp.NoEnhancedCode, "a\nb", "250-a\r\n250 b\r\n"},
		{554, gosmtp.EnhancedCode{4, 1, 5}, "other class", "554 5.0.0 other class\r\n"},
		{354, gosmtp.EnhancedCodeNotSet, "go", "354 go\r\n"},
		{550, gosmtp.EnhancedCode{5, 1, 1}, "a\r\n250 OK\x00\u00fc", "550-5.1.1 a\r\n550 5.1.1 250 OK???\r\n"},
		{550, gosmtp.NoEnhancedCode, long, "550 " + long[:maxReplyText] + "\r\n"},
	} {
		if got := string(appendReply(nil, c.code, c.enhanced, c.text)); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
