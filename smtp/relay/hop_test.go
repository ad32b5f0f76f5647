package relay

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"understudy/smtp"
)

func TestParseHop(t *testing.T) {
	t.Parallel()
	const hexPin = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fff"
	tests := []struct{ in, want string }{
		{"smtp://mx1.example.net:25", "tcp mx1.example.net:25"},
		{"smtp://mx1.example.net", "tcp mx1.example.net:25"},
		{"mx1.example.net", "tcp mx1.example.net:25"},
		{"mx1.example.net:2525", "tcp mx1.example.net:2525"},
		{"smtp://[2001:db8::1]:25", "tcp [2001:db8::1]:25"},
		{"[2001:db8::1]", "tcp [2001:db8::1]:25"},
		{"smtps://mx1", "tcp mx1:465 implicit"},
		{"lmtp://127.0.0.1:24", "tcp 127.0.0.1:24 lmtp"},
		{"lmtp://h", "tcp h:24 lmtp"},
		{"lmtp:///run/dovecot/lmtp", "unix /run/dovecot/lmtp lmtp"},
		{"mx://example.net", "tcp example.net:25 mx"},
		{"smtp://h?tls=required&connections=3&chunking=off&name=n", "tcp h:25 tls=required conns=3 nochunk name=n"},
		{"smtp://h?pin=sha256:" + hexPin, "tcp h:25 tls=pinned pin=ff"},
		{"smtp://h?pin=pin-sha256:" + hexPin + "&tls=pinned", "tcp h:25 tls=pinned pin=ff"},
		{"smtp://h?pin=sha256:" + strings.Repeat("+/", 21) + "8=", "tcp h:25 tls=pinned pin=ff"},
		{"", "! no host"},
		{"smtp://", "! no host"},
		{"http://h", "! unknown scheme"},
		{"smtp://h:0", "! port"},
		{"smtp://h:x", "! port"},
		{"smtp://u@h", "! only scheme"},
		{"smtp://h/path", "! a path needs"},
		{"smtp://h?tls=maybe", "! tls="},
		{"smtp://h?tls=pinned", "! go together"},
		{"smtp://h?pin=sha256:" + hexPin + "&tls=required", "! go together"},
		{"smtp://h?pin=md5:00", "! pin"},
		{"smtp://h?pin=sha256:00", "! pin"},
		{"smtp://h?connections=0", "! connections"},
		{"smtp://h?chunking=maybe", "! chunking"},
		{"smtp://h?colour=red", "! unknown option"},
		{"smtps://h?tls=none", "! smtps"},
	}
	for _, tt := range tests {
		h, err := ParseHop(tt.in)
		got := h.Network + " " + h.Address
		add := func(on bool, s string) {
			if on {
				got += " " + s
			}
		}
		add(h.ImplicitTLS, "implicit")
		add(h.LMTP, "lmtp")
		add(h.MX, "mx")
		add(h.TLS != "", "tls="+string(h.TLS))
		add(h.Connections != 0, "conns=3")
		add(h.NoChunking, "nochunk")
		add(h.ServerName != "", "name="+h.ServerName)
		if len(h.Pins) > 0 {
			add(true, "pin="+hex.EncodeToString(h.Pins[0][31:]))
		}
		if err != nil {
			if want, ok := strings.CutPrefix(tt.want, "! "); !ok || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %s", tt.in, err, tt.want)
			}
			continue
		}
		if got != tt.want || h.String() != tt.in {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzParseHop(f *testing.F) {
	f.Add("smtp://h:25?tls=required")
	f.Add("lmtp:///x")
	f.Add("[::1]:25")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHop(s)
		if err == nil && (h.Address == "" || h.Host == "" || h.String() != s) {
			t.Fatalf("%q: %+v", s, h)
		}
	})
}

func TestRelayName(t *testing.T) {
	t.Parallel()
	tcp, err := ParseHop("smtp://mx1.example.net")
	if err != nil {
		t.Fatal(err)
	}
	unix, err := ParseHop("lmtp:///run/lmtp")
	if err != nil {
		t.Fatal(err)
	}
	if got := relayName(tcp, "mx1.example.net", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:25"))); got != "mx1.example.net[192.0.2.1]:25" {
		t.Error(got)
	}
	if got := relayName(unix, "localhost", &net.UnixAddr{}); got != "localhost[/run/lmtp]" {
		t.Error(got)
	}
}

func TestClientHeader(t *testing.T) {
	t.Parallel()
	env := &smtp.Envelope{
		Received: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Client:   smtp.Client{Addr: netip.MustParseAddrPort("192.0.2.1:99"), HELO: "evil\r\nSubject: x; addr=1", ReverseName: "c.test"},
	}
	want := "X-Understudy-Client: addr=192.0.2.1; helo=evil+0D+0ASubject:+20x+3B+20addr+3D1;\r\n\tname=c.test; received=2026-01-02T03:04:05Z\r\n"
	if got := clientHeader(env); got != want {
		t.Errorf("%q", got)
	}
	if got := clientHeader(&smtp.Envelope{}); got != "" {
		t.Errorf("%q", got)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c := reflect.ValueOf(DefaultConfig())
	for i := range c.NumField() {
		f := c.Type().Field(i)
		got := fmt.Sprint(c.Field(i).Interface())
		want := f.Tag.Get("default")
		if d, err := time.ParseDuration(want); err == nil {
			want = d.String()
		}
		if got != want || f.Tag.Get("key") == "" || f.Tag.Get("doc") == "" {
			t.Errorf("%s: default is %q, the tag says %q", f.Name, got, want)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{TLS: "maybe"}.Validate()
	if err == nil {
		t.Fatal("an empty configuration is valid")
	}
	for _, key := range []string{"connections:", "window:", "probe_interval:", "pause_after:", "tls:", "final_timeout:"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("no fault for %s in %v", key, err)
		}
	}
}
