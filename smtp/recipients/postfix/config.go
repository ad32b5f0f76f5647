package postfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"
)

// Config says where Postfix asks.
type Config struct {
	// Socketmap and Policy hold "inet:host:port" or "unix:/path", as in main.cf.
	Socketmap []string `key:"socketmap_listen" doc:"Where Postfix asks for domains, recipients and route: inet:host:port or unix:/path, as main.cf names it; empty: nowhere."`
	Policy    []string `key:"policy_listen" doc:"Where Postfix asks for a decision at RCPT (check_policy_service): inet:host:port or unix:/path; empty: nowhere."`
	// MaxConnections bounds the connections of each kind.
	MaxConnections int           `key:"max_connections" default:"500" doc:"Connections served at the same time; more wait."`
	IdleTimeout    time.Duration `key:"idle_timeout" default:"10m" doc:"Silence after which a connection is closed; Postfix connects again."`
	LookupTimeout  time.Duration `key:"lookup_timeout" default:"20s" doc:"Longest look-up; then the answer is a temporary failure."`
}

// DefaultConfig returns the defaults that the tags name.
func DefaultConfig() Config {
	return Config{MaxConnections: 500, IdleTimeout: 10 * time.Minute, LookupTimeout: 20 * time.Second}
}

// Validate returns all faults at once, each prefixed with its key.
func (c Config) Validate() error {
	var faults []error
	for key, list := range map[string][]string{"socketmap_listen": c.Socketmap, "policy_listen": c.Policy} {
		for _, a := range list {
			if _, _, err := splitAddress(a); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", key, err))
			}
		}
	}
	if c.MaxConnections < 1 {
		faults = append(faults, fmt.Errorf("max_connections: %d is less than 1", c.MaxConnections))
	}
	if c.IdleTimeout <= 0 {
		faults = append(faults, fmt.Errorf("idle_timeout: %s is not positive", c.IdleTimeout))
	}
	if c.LookupTimeout <= 0 {
		faults = append(faults, fmt.Errorf("lookup_timeout: %s is not positive", c.LookupTimeout))
	}
	return errors.Join(faults...)
}

// splitAddress reads "inet:host:port" and "unix:/path".
func splitAddress(s string) (network, address string, err error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch kind {
	case "inet":
		if _, _, err := net.SplitHostPort(rest); err != nil {
			return "", "", fmt.Errorf("%q: %w", s, err)
		}
		return "tcp", rest, nil
	case "unix":
		if !strings.HasPrefix(rest, "/") {
			return "", "", fmt.Errorf("%q: the path is not absolute", s)
		}
		return "unix", rest, nil
	}
	return "", "", fmt.Errorf("%q is not inet:host:port or unix:/path", s)
}

// Listen opens an address of the configuration. A unix socket gets mode 0666,
// because Postfix connects as its own user, and its directory guards it; a socket
// file that nobody serves any more is replaced.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	network, where, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	if network == "unix" {
		if err := removeStale(ctx, where); err != nil {
			return nil, err
		}
	}
	l, err := lc.Listen(ctx, network, where)
	if err != nil {
		return nil, fmt.Errorf("listen for postfix: %w", err)
	}
	if network == "unix" {
		if err := os.Chmod(where, 0o666); err != nil { //nolint:gosec // see above
			return nil, errors.Join(fmt.Errorf("open socket to postfix: %w", err), l.Close())
		}
	}
	return l, nil
}

// removeStale removes a socket that refuses connections.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and no socket", path)
	}
	d := net.Dialer{Timeout: time.Second}
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return fmt.Errorf("%s is served by another process", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}
