package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"understudy/smtp"
	"understudy/smtp/relay"
)

// check holds the rules that concern more than one package.
func (c *Config) check(report reporter) {
	sitesOK := c.checkSites(report)
	if !filepath.IsAbs(c.DataDir) {
		report("data_dir", fmt.Sprintf("%q is not an absolute path", c.DataDir))
	}
	c.checkDomains(report)
	for i, a := range c.SMTP.Listen {
		if err := checkListen(a); err != nil {
			report(indexed("smtp.listen", i), err.Error())
		} else if slices.Index(c.SMTP.Listen, a) < i {
			report(indexed("smtp.listen", i), fmt.Sprintf("%q is there twice", a))
		}
	}
	if t := c.SMTP.TLS; t.Certificate != "" && t.Key == "" {
		report("smtp.tls.key", "is missing; a certificate needs its private key")
	} else if t.Key != "" && t.Certificate == "" {
		report("smtp.tls.certificate", "is missing; a private key needs its certificate")
	}
	if h := c.SMTP.Hostname; h != "" {
		if _, err := checkDomain(h); err != nil {
			report("smtp.hostname", err.Error())
		}
	}
	if sitesOK {
		c.checkMailsync(report)
	}
	c.checkPeer(report)
	c.checkParity(report)
	if sitesOK {
		c.checkFailover(report)
	}
	checkHopList("smtp.deliver.to_peer", c.SMTP.Deliver.ToPeer, report)
	checkHopList("smtp.deliver.local", c.SMTP.Deliver.Local, report)
	if len(c.SMTP.Listen) > 0 {
		c.checkServing(report)
		if sitesOK {
			c.checkHops(report)
		}
	}
}

// checkServing holds what must be set where mail is accepted.
func (c *Config) checkServing(report reporter) {
	if len(c.Domains) == 0 {
		report("domains", "is empty; smtp.listen needs the domains that mail is accepted for")
	}
	if c.SMTP.Hostname == "" {
		report("smtp.hostname", "is missing; write this machine's name, as mx2.example.com")
	}
}

// checkHopList wants every hop to parse.
func checkHopList(path string, list []string, report reporter) {
	for i, text := range list {
		if _, err := relay.ParseHop(text); err != nil {
			at := path
			if len(list) > 1 {
				at = indexed(path, i)
			}
			report(at, err.Error())
		}
	}
}

// checkHops wants the hop that this site's role calls for.
func (c *Config) checkHops(report reporter) {
	d := c.SMTP.Deliver
	if c.Site == c.Primary && len(d.Local) == 0 {
		report("smtp.deliver.local", fmt.Sprintf("is missing; site %s is the primary and must deliver locally", c.Site))
	}
	if c.Site != c.Primary && len(d.ToPeer) == 0 {
		report("smtp.deliver.to_peer", fmt.Sprintf("is missing; site %s must hand its mail to the primary, site %s", c.Site, c.Primary))
	}
}

// checkSites says whether this site and the primary are among the sites.
func (c *Config) checkSites(report reporter) (ok bool) {
	ok = true
	fault := func(path, format string, args ...any) {
		ok = false
		report(path, fmt.Sprintf(format, args...))
	}
	names := strings.Join(c.Sites, ", ")
	if len(c.Sites) != 2 || c.Sites[0] == c.Sites[1] {
		fault("sites", "is [%s]; expected the names of two sites", names)
	}
	for i, s := range c.Sites {
		if s == "" || len(s) > 63 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			fault(indexed("sites", i), "%q is no name of a site; use letters, digits, - and _, at most 63", s)
		}
	}
	switch {
	case c.Site == "":
		fault("site", "is missing; write which of %s this machine is", names)
	case !slices.Contains(c.Sites, c.Site):
		fault("site", "%q is not one of sites (%s)", c.Site, names)
	}
	if c.Primary != "" && !slices.Contains(c.Sites, c.Primary) {
		fault("primary", "%q is not one of sites (%s)", c.Primary, names)
	}
	return ok
}

// checkDomains wants every domain to be a name, and once.
func (c *Config) checkDomains(report reporter) {
	seen := make(map[string]bool, len(c.Domains))
	for i, d := range c.Domains {
		name, err := checkDomain(d)
		switch {
		case err != nil:
			report(indexed("domains", i), err.Error())
		case seen[name]:
			report(indexed("domains", i), fmt.Sprintf("%q is there twice", d))
		}
		seen[name] = true
	}
}

// checkDomain refuses what cannot be the name of a host or mail domain, and
// returns it in the form in which names are compared.
func checkDomain(name string) (string, error) {
	normal, err := smtp.NormalizeDomain(name)
	if err != nil || strings.ContainsAny(normal, "/\\:,;()[]'*") || strings.HasSuffix(name, ".") {
		return "", fmt.Errorf("%q is not a domain name", name)
	}
	return normal, nil
}

// checkListen takes host:port or :port with a numeric address.
func checkListen(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on; write :25 or 192.0.2.1:25", addr)
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && host != "localhost" {
		return fmt.Errorf("%q: %q is not an IP address", addr, host)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: %q is not a port", addr, port)
	}
	return nil
}

// checkSecrets looks at every file that holds a secret.
func (l *loader) checkSecrets(report reporter) {
	each(l.schema, "", l.target, func(k *key, path string, v reflect.Value) {
		if !k.secret || k.kind != kindString || v.String() == "" {
			return
		}
		if err := checkSecret(v.String()); err != nil {
			report(path, err.Error())
		}
	})
}

// checkSecret wants a readable, non-empty file that only its owner and group
// can read.
func checkSecret(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist", path)
	case err != nil:
		return fmt.Errorf("look at the file: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case info.Size() == 0:
		return fmt.Errorf("%s is empty", path)
	case info.Mode().Perm()&0o007 != 0:
		return fmt.Errorf("%s is open to everybody (mode %04o); run chmod o= on it", path, info.Mode().Perm())
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the file: %w", err)
	}
	return f.Close()
}

// checkPair loads the certificate with its key, as the server will.
func (t TLS) checkPair(report reporter) {
	if t.Certificate == "" || t.Key == "" {
		return
	}
	if _, err := os.ReadFile(t.Certificate); err != nil {
		report("smtp.tls.certificate", fmt.Sprintf("cannot be read: %v", err))
		return
	}
	if _, err := os.Stat(t.Key); err != nil {
		return // checkSecrets says so
	}
	if _, err := tls.LoadX509KeyPair(t.Certificate, t.Key); err != nil {
		report("smtp.tls.certificate", fmt.Sprintf("cannot be used with smtp.tls.key: %v", err))
	}
}

// indexed is the path of a list's element.
func indexed(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
