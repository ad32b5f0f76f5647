package replica

import (
	"strings"
	"testing"
	"time"

	"understudy/spamsync"
	"understudy/spamsync/replica/stream"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for want, change := range map[string]func(*Config){
		"gate_listen":  func(c *Config) { c.GateListen = "0.0.0.0:6391" },
		"detach_after": func(c *Config) { c.DetachAfter = time.Millisecond },
		"peer_key":     func(c *Config) { c.PeerTLS, c.PeerCertificate = true, "/x" },
		"peer_tls":     func(c *Config) { c.PeerCA = "/x" },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+": ") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestRspamdConfig: one read server alone would leave Rspamd 3.4 without scripts.
func TestRspamdConfig(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	c := spamsync.RedisConfig{Address: "127.0.0.1:6379", WriteListen: "127.0.0.1:6390", Username: "filter", DB: 2}
	if _, err := WriteRspamdConfig(&b, c); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`read_servers = "127.0.0.1:6379,127.0.0.1:6379";`, `write_servers = "127.0.0.1:6390";`, `username = "filter";`, `db = "2";`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %s:\n%s", want, b.String())
		}
	}
}

func TestLag(t *testing.T) {
	t.Parallel()
	var l lag
	start := time.Unix(100, 0)
	see := func(role string, s int, offset int64) Seen {
		return Seen{At: start.Add(time.Duration(s) * time.Second), Info: stream.Info{Role: role, Now: at("x", offset)}}
	}
	var home Seen
	for s := range 10 {
		home = see("master", s, int64(s)*1000)
		l.peer(home)
	}
	l.local(see("slave", 10, 9000), home)
	if l.bytes != 0 || l.seconds != 0 {
		t.Errorf("in step: %d bytes, %v s", l.bytes, l.seconds)
	}
	l.local(see("slave", 10, 4000), home)
	if l.bytes != 5000 || l.seconds != 5 || l.rate() != 1000 {
		t.Errorf("behind: %d bytes, %v s, %v bytes a second", l.bytes, l.seconds, l.rate())
	}
	l.peer(Seen{At: start, Info: stream.Info{Role: "master", Now: at("y", 1)}})
	if l.rate() != 0 {
		t.Errorf("another history: %v", l.rate())
	}
}
