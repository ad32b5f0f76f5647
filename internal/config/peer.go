package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"understudy/internal/peer"
)

// completePeer fills in what follows from other keys.
func (c *Config) completePeer() {
	if c.Link.KeyFile == "" {
		c.Link.KeyFile = filepath.Join(c.DataDir, "peer.key")
	}
}

// checkPeer holds the rules about the link that need its file.
func (c *Config) checkPeer(report reporter) {
	for i, a := range c.Link.Listen {
		if err := checkListen(a); err != nil {
			report(indexed("peer.listen", i), err.Error())
		}
	}
	if c.Link.On() && filepath.IsAbs(c.DataDir) && !filepath.IsAbs(c.Link.KeyFile) {
		report("peer.key_file", fmt.Sprintf("%q is not an absolute path", c.Link.KeyFile))
	}
}

// Pairing is what the other site must know about this one. Its address is a
// guess where it has to be: the host name of SMTP with the port of peer.listen.
func (c *Config) Pairing(key *peer.Key) peer.Pairing {
	p := peer.Pairing{Site: c.Site, Pin: key.Pin()}
	if len(c.Link.Listen) == 0 {
		return p
	}
	at := c.Link.Listen[0]
	host, port := at[:strings.LastIndex(at, ":")], at[strings.LastIndex(at, ":")+1:]
	if host == "" || host == "0.0.0.0" || host == "[::]" {
		host = c.SMTP.Hostname
	}
	if host != "" {
		p.Address = host + ":" + port
	}
	return p
}

// sharedKeys are the keys that both sites must agree on, each with all below it.
func sharedKeys() []string {
	return []string{
		"sites", "primary", "domains", "failover",
		"smtp.recipients.when_stale", "smtp.recipients.delimiter", "smtp.recipients.case_sensitive", "smtp.max_message",
		"spam.engine", "spam.clamd", "spam.builtin", "spam.learn.engine",
		"tunnel.services",
	}
}

// ownKeys are those below the shared ones that each site has for itself.
func ownKeys() []string {
	return []string{"failover.hooks", "failover.probes", "failover.twin", "failover.self_probes", "failover.register.tsig", "tunnel.services"}
}

// Summary is what a site tells the other about its configuration: the keys both
// must agree on, each with a hash of its value. Secrets and names of files are not
// among them.
func Summary(cfg Config) map[string]string {
	schema, err := schemaOf(reflect.TypeFor[Config]())
	if err != nil {
		return nil // a test excludes it
	}
	out := map[string]string{}
	summarize(schema, reflect.ValueOf(cfg), out)
	for name, s := range cfg.Tunnel.Services {
		// What a client meets must be alike; where a site hands it to is its own.
		out["tunnel.services."+name] = hashOf(fmt.Sprintf("%s %s", s.WhenFenced, s.Protocol))
	}
	return out
}

func summarize(k *key, v reflect.Value, out map[string]string) {
	for _, c := range k.children {
		x := v.FieldByIndex(c.index)
		switch {
		case c.kind == kindSection:
			summarize(c, x, out)
		case c.secret || strings.HasSuffix(c.name, "_file") || under(c.path, ownKeys()) || !under(c.path, sharedKeys()):
		case (c.kind == kindList || c.kind == kindMap) && x.Len() == 0:
			out[c.path] = hashOf("")
		default:
			out[c.path] = hashOf(fmt.Sprintf("%+v", x.Interface()))
		}
	}
}

func under(path string, keys []string) bool {
	for _, k := range keys {
		if path == k || strings.HasPrefix(path, k+".") {
			return true
		}
	}
	return false
}

func hashOf(value string) string {
	h := sha256.Sum256([]byte(value))
	return hex.EncodeToString(h[:6])
}
