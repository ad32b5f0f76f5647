package daemon

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// recheckAfter is how long a certificate is served before its files are looked
// at again.
const recheckAfter = 5 * time.Second

// certificate serves a key pair from files and reads it again when they change,
// so that a renewed certificate needs no restart. A pair that cannot be read
// leaves the old one in force.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   [2]time.Time // modification times of the pair in force, or refused
	checked time.Time
}

// newCertificate reads the pair for the first time.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	stamp, err := c.modified()
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	c.pair, c.stamp, c.checked = &pair, stamp, time.Now()
	return c, nil
}

// config is the server side: TLS 1.2 or newer, this certificate.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current(), nil
		},
	}
}

// current returns the pair in force, after a look at the files if the last one
// was long enough ago.
func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < recheckAfter {
		return c.pair
	}
	c.checked = time.Now()
	stamp, err := c.modified()
	if err != nil {
		c.log.Warn("certificate files not readable, the old pair stays", "err", err)
		return c.pair
	}
	if stamp == c.stamp {
		return c.pair
	}
	c.stamp = stamp
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		// Perhaps only one of the two files has been replaced so far; the second
		// will change the stamp again.
		c.log.Warn("changed certificate not usable, the old pair stays", "err", err)
		return c.pair
	}
	c.pair = &pair
	c.log.Info("certificate read again", "file", c.certFile)
	return c.pair
}

// modified returns when the two files were last written.
func (c *certificate) modified() ([2]time.Time, error) {
	var out [2]time.Time
	for i, name := range []string{c.certFile, c.keyFile} {
		st, err := os.Stat(name)
		if err != nil {
			return out, fmt.Errorf("look at certificate: %w", err)
		}
		out[i] = st.ModTime()
	}
	return out, nil
}
