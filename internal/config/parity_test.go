package config

import (
	"strings"
	"testing"
)

// TestParityNeeds: what comparing by schedule needs depends on the engine.
func TestParityNeeds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{engine: rspamd, url: 'http://127.0.0.1:1', parity: {interval: 1h}}":                                "spam.parity.peer_url: is missing",
		"{engine: rspamd, url: 'http://127.0.0.1:1', parity: {interval: 1h, peer_url: 'http://10.0.0.1:2'}}": "",
		"{engine: builtin, parity: {interval: 1h}}":                                                          "spam.parity.interval: needs spam.redis.address",
		"{engine: builtin, redis: {address: '127.0.0.1:1', peer: '10.0.0.1:2'}, parity: {interval: 1h}}":     "",
		"{engine: spamd, url: '127.0.0.1:1', parity: {interval: 1h}}":                                        "cannot be compared",
		"{parity: {interval: 1h}}":                                 "needs an engine",
		"{engine: rspamd, parity: {configdump: [cat, /x]}}":        "peer_configdump: is missing",
		"{engine: rspamd, parity: {peer_configdump: ['', cat]}}":   "peer_configdump: must begin with the name of a program",
		"{engine: rspamd, parity: {peer_configdump: [cat, /x/y]}}": "",
	} {
		_, got := parse(t, "site: b\nspam: "+text+"\n")
		if (want == "") == strings.Contains(got, "spam.parity") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
