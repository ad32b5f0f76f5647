package replica

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"understudy/spamsync/replica/journal"
)

// Config is this package's part of the section spam.redis. Replication is looked
// after where both peer and write_listen are set.
type Config struct {
	GateListen        string         `key:"gate_listen" default:"127.0.0.1:6391" doc:"Where this site's Redis finds the other one, through a gate that lets no full copy pass unless nothing is lost by it; host:port on loopback."`
	DetachAfter       time.Duration  `key:"detach_after" default:"5s" doc:"How long the Redis that takes writes may be away before this site's own takes them."`
	AdminUsername     string         `key:"admin_username" doc:"User that may watch and change replication, at both Redis; empty is the default user."`
	AdminPasswordFile string         `key:"admin_password_file" secret:"true" doc:"File that holds its password, one line."`
	PeerTLS           bool           `key:"peer_tls" default:"false" doc:"Speak TLS to the other site's Redis."`
	PeerCA            string         `key:"peer_ca" doc:"PEM file of the authorities that may sign its certificate; empty takes the system's."`
	PeerServerName    string         `key:"peer_server_name" doc:"Name that its certificate must have; empty is the host of peer."`
	PeerCertificate   string         `key:"peer_certificate" doc:"PEM file of this site's own certificate, where the other Redis asks for one."`
	PeerKey           string         `key:"peer_key" secret:"true" doc:"PEM file of its private key."`
	Journal           journal.Config `key:"journal"`
}

// DefaultConfig returns the defaults that the tags name.
func DefaultConfig() Config {
	return Config{GateListen: "127.0.0.1:6391", DetachAfter: 5 * time.Second, Journal: journal.DefaultConfig()}
}

// Validate reports all faults at once, each with its key.
func (c Config) Validate() error {
	var errs []error
	if err := Loopback(c.GateListen); err != nil {
		errs = append(errs, fmt.Errorf("gate_listen: %w", err))
	}
	if c.DetachAfter < time.Second {
		errs = append(errs, errors.New("detach_after: must be at least 1s"))
	}
	if (c.PeerCertificate == "") != (c.PeerKey == "") {
		errs = append(errs, errors.New("peer_key: a certificate and its key belong together"))
	}
	if !c.PeerTLS && (c.PeerCA != "" || c.PeerServerName != "" || c.PeerCertificate != "") {
		errs = append(errs, errors.New("peer_tls: is off, and the other peer_ keys need it"))
	}
	return errors.Join(errs...)
}

// Loopback wants host:port with an address that only this machine reaches.
func Loopback(listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("%q is not host:port", listen)
	}
	if host == "localhost" {
		return nil
	}
	if addr, err := netip.ParseAddr(host); err != nil || !addr.IsLoopback() {
		return fmt.Errorf("%q is not on loopback; write 127.0.0.1:PORT", listen)
	}
	return nil
}

// peer is how the Redis at addr is reached. It reads the files that are named.
func (c Config) peer(addr string) (Address, error) {
	if !c.PeerTLS {
		return Address{Addr: addr}, nil
	}
	t := &tls.Config{ServerName: c.PeerServerName, MinVersion: tls.VersionTLS12}
	if t.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return Address{}, fmt.Errorf("peer: %w", err)
		}
		t.ServerName = host
	}
	if c.PeerCA != "" {
		pem, err := os.ReadFile(c.PeerCA)
		if err != nil {
			return Address{}, fmt.Errorf("peer_ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return Address{}, fmt.Errorf("peer_ca: no certificate in %s", c.PeerCA)
		}
	}
	if c.PeerCertificate != "" {
		cert, err := tls.LoadX509KeyPair(c.PeerCertificate, c.PeerKey)
		if err != nil {
			return Address{}, fmt.Errorf("peer_certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return Address{Addr: addr, TLS: t}, nil
}

// password reads the administrator's password; empty where none is configured.
func (c Config) password() (string, error) {
	if c.AdminPasswordFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(c.AdminPasswordFile)
	if err != nil {
		return "", fmt.Errorf("admin_password_file: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimRight(line, "\r"), nil
}
