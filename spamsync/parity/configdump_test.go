package parity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const dumpHere = `{
  "options": {"pidfile": "/run/rspamd/rspamd.pid", "cache_file": "/var/lib/rspamd/symbols.cache", "tempdir": "/tmp", "task_timeout": 8.000,
    "control_socket": "/var/lib/rspamd/a.sock mode=0600", "local_addrs": ["192.168.0.0/16", "10.0.0.0/8"], "dns": {"nameserver": ["127.0.0.1:53"], "retransmits": 5}},
  "redis": {"servers": "127.0.0.1:6379", "db": "2", "password": "a"},
  "worker": [{"normal": {"count": 2}}, {"controller": {"count": 1}}],
  "rbl": {"url_whitelist": ["https://maps.example/x.zst", "fallback+file:///etc/rspamd/maps.d/x.inc"]},
  "regexp": {"R": {"re": "/var/i"}},
  "classifier": {"bayes": {"statfile": [{"symbol": "BAYES_HAM", "spam": false}, {"symbol": "BAYES_SPAM", "spam": true}]}},
  "greylist": {"enabled": true, "whitelisted_ip": "192.0.2.1"},
  "external": {"api_key": "abc", "socket": "10.0.0.1:3310"}
}`

// dumpPeer is the same on another machine.
const dumpPeer = "cannot read servers definition\n" + `{
  "redis": {"db": "2", "read_servers": "10.0.0.2:6379,10.0.0.2:6379", "write_servers": "10.0.0.1:6379", "password": "b"},
  "options": {"pidfile": "/var/run/r.pid", "cache_file": "/srv/mail/rspamd/symbols.cache", "tempdir": "/var/tmp", "task_timeout": 8,
    "control_socket": "/srv/mail/rspamd/a.sock mode=0600", "local_addrs": ["10.0.0.0/8", "192.168.0.0/16"], "dns": {"nameserver": "10.0.0.53", "retransmits": 5}},
  "worker": [{"controller": {"count": 1}}, {"normal": {"count": 8}}],
  "rbl": {"url_whitelist": ["https://maps.example/x.zst", "fallback+file:///srv/rspamd/x.inc"]},
  "regexp": {"R": {"re": "/var/i"}},
  "classifier": {"bayes": {"statfile": [{"symbol": "BAYES_HAM", "spam": false}, {"symbol": "BAYES_SPAM", "spam": true}]}},
  "greylist": {"enabled": true, "whitelisted_ip": "192.0.2.1"},
  "external": {"api_key": "abc", "socket": "10.9.0.1:3311"}
}`

// TestSettings: what belongs to a machine is no difference, everything else is one.
func TestSettings(t *testing.T) {
	t.Parallel()
	read := func(text string) map[string]string {
		t.Helper()
		settings, err := parseDump([]byte(text), []string{"worker"})
		if err != nil {
			t.Fatal(err)
		}
		return settings
	}
	here := read(dumpHere)
	if diffs := differSettings(here, read(dumpPeer)); len(diffs) != 0 {
		t.Errorf("another machine: %v", diffs)
	}
	if here["classifier.bayes.statfile.1.symbol"] != "BAYES_SPAM" || here["options.local_addrs"] != "10.0.0.0/8, 192.168.0.0/16" || len(here) < 15 {
		t.Errorf("%q", here)
	}
	for _, c := range []struct{ from, to, want string }{
		{`"retransmits": 5`, `"retransmits": 6`, "setting options.dns.retransmits: here 5, peer 6"},
		{`"10.0.0.0/8", `, ``, "setting options.local_addrs: here 10.0.0.0/8, 192.168.0.0/16, peer 192.168.0.0/16"},
		{`"db": "2", `, ``, "setting redis.db: here 2, peer absent"},
		{`"db": "2", `, `"db": "", `, `setting redis.db: here 2, peer ""`},
		{`"enabled": true`, `"enabled": false`, "setting greylist.enabled: here true, peer false"},
		{`"192.0.2.1"`, `"192.0.2.7"`, "setting greylist.whitelisted_ip: here 192.0.2.1, peer 192.0.2.7"},
		{`/x.inc`, `/y.inc`, "setting rbl.url_whitelist: here fallback+file://x.inc, https://maps.example/x.zst, peer fallback+file://y.inc, https://maps.example/x.zst"},
		{`"re": "/var/i"`, `"re": "/^var/i"`, "setting regexp.R.re: here /var/i, peer /^var/i"},
		{`"abc"`, `"xyz"`, "setting external.api_key: here a secret, peer another secret"},
		{`"BAYES_HAM", "spam": false`, `"BAYES_HAM", "spam": true`, "setting classifier.bayes.statfile.0.spam: here false, peer true"},
		{`"external": {`, `"more": {"x": 1}, "external": {`, "setting more.x: here absent, peer 1"},
	} {
		changed := strings.Replace(dumpPeer, c.from, c.to, 1)
		if changed == dumpPeer {
			t.Fatalf("%s is not in the dump", c.from)
		}
		var got []string
		for _, d := range differSettings(here, read(changed)) {
			got = append(got, d.String())
		}
		if d := cmp.Diff([]string{c.want}, got); d != "" {
			t.Error(d)
		}
	}
	for _, bad := range []string{"", "{}", "warning\n", "[1]", `{"a":`, strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)} {
		if settings, err := parseDump([]byte(bad), nil); err == nil {
			t.Errorf("%.20q: %v", bad, settings)
		}
	}
}

// TestConfigurationOfCommands: from files; what fails is unknown, what is not
// configured is skipped.
func TestConfigurationOfCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) []string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"cat", path}
	}
	compare := func(here, peer []string) Report {
		cfg := DefaultConfig()
		cfg.PeerURL, cfg.Configdump, cfg.PeerConfigdump = "http://127.0.0.1:1", here, peer
		c, err := New(cfg, Deps{URL: "http://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r := Report{}
		r.note("configuration", c.compareConfiguration(t.Context(), &r))
		r.conclude()
		return r
	}
	same := file("here", dumpHere)
	if r := compare(same, file("peer", dumpPeer)); r.Broken() || r.Settings < 15 || len(r.Skipped) != 0 {
		t.Errorf("equal: %+v", r)
	}
	if r := compare(same, file("other", strings.Replace(dumpPeer, "8", "9", 1))); !r.Broken() || len(r.Differences) != 1 {
		t.Errorf("different: %+v", r)
	}
	if r := compare(nil, nil); r.Broken() || len(r.Skipped) != 1 {
		t.Errorf("nothing configured: %+v", r)
	}
	for want, peer := range map[string][]string{
		"exit status 3: no such host": {"sh", "-c", "echo no such host >&2; exit 3"},
		"is no JSON object":           {"echo", "hello"},
		"executable file not found":   {"no-such-program-here"},
		"too long":                    {"head", "-c", "40000000", "/dev/zero"},
	} {
		r := compare(same, peer)
		if !r.Broken() || len(r.Unknown) != 1 || !strings.Contains(r.Unknown[0], "configuration: peer: ") || !strings.Contains(r.Unknown[0], want) {
			t.Errorf("%q: %q, want %q", peer, r.Unknown, want)
		}
	}
}
