package recipients

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"understudy/internal/ask"
)

// ldapPage is how many entries one answer holds; Active Directory allows 1,000.
const ldapPage = 500

// directorySearch is a fetcher that asks an LDAP server.
type directorySearch struct {
	cfg SourceConfig
}

var _ fetcher = (*directorySearch)(nil)

func (s *directorySearch) fetch(ctx context.Context, l *listing) (time.Time, error) {
	password, err := ask.Secret(s.cfg.SecretFile)
	if err != nil {
		return time.Time{}, err
	}
	conn, err := s.dial(ctx)
	if err != nil {
		return time.Time{}, ended(ctx, err)
	}
	defer conn.Close() //nolint:errcheck // read only
	// The library has no contexts: the end of ours ends the connection.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if s.cfg.StartTLS {
		tc, err := s.tls()
		if err != nil {
			return time.Time{}, err
		}
		if err := conn.StartTLS(tc); err != nil {
			return time.Time{}, ended(ctx, fmt.Errorf("starttls: %w", err))
		}
	}
	if s.cfg.BindDN != "" {
		if err := conn.Bind(s.cfg.BindDN, password); err != nil {
			return time.Time{}, ended(ctx, fmt.Errorf("bind: %w", err))
		}
	}
	asOf := time.Now()
	if err := s.search(conn, l); err != nil {
		return time.Time{}, ended(ctx, err)
	}
	return asOf, nil
}

// ended names the time-out where that is what closed the connection.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// dial connects; ldaps:// with TLS from the start.
func (s *directorySearch) dial(ctx context.Context) (*ldap.Conn, error) {
	u, err := url.Parse(s.cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("parse url: %w", err)
	}
	network, address := "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), ldap.DefaultLdapPort))
	switch u.Scheme {
	case "ldap":
	case "ldaps":
		address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), ldap.DefaultLdapsPort))
	case "ldapi":
		network, address = "unix", u.Path
		if address == "" || address == "/" {
			address = "/var/run/slapd/ldapi"
		}
	default:
		return nil, fmt.Errorf("url: scheme %q is not ldap, ldaps or ldapi", u.Scheme)
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	if u.Scheme == "ldaps" {
		tc, err := s.tls()
		if err != nil {
			_ = nc.Close()
			return nil, err
		}
		secured := tls.Client(nc, tc)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = nc.Close()
			return nil, fmt.Errorf("dial: %w", err)
		}
		nc = secured
	}
	conn := ldap.NewConn(nc, u.Scheme == "ldaps")
	conn.SetTimeout(s.cfg.Timeout)
	conn.Start()
	return conn, nil
}

// tls returns how the server's certificate is checked.
func (s *directorySearch) tls() (*tls.Config, error) {
	u, err := url.Parse(s.cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("parse url: %w", err)
	}
	roots, err := ask.Authorities(s.cfg.Authorities)
	if err != nil {
		return nil, err
	}
	return &tls.Config{ServerName: u.Hostname(), RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// search reads page by page (RFC 2696).
func (s *directorySearch) search(conn *ldap.Conn, l *listing) error {
	page := ldap.NewControlPaging(ldapPage)
	for n := 0; ; {
		req := ldap.NewSearchRequest(s.cfg.Base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
			s.cfg.Filter, s.cfg.Attributes, []ldap.Control{page})
		res, err := conn.Search(req)
		if err != nil {
			return fmt.Errorf("search: %w", err)
		}
		for _, e := range res.Entries {
			n++
			if err := s.entry(e, n, l); err != nil {
				return err
			}
		}
		next, ok := ldap.FindControl(res.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok || len(next.Cookie) == 0 {
			return nil
		}
		if len(res.Entries) == 0 && n == 0 {
			return errors.New("search: empty page with a cookie")
		}
		page.SetCookie(next.Cookie)
	}
}

func (s *directorySearch) entry(e *ldap.Entry, n int, l *listing) error {
	for _, a := range e.Attributes {
		for _, v := range a.Values {
			address, ok := ldapAddress(v)
			if !ok {
				continue
			}
			if err := l.add(fmt.Sprintf("entry %d (%s)", n, a.Name), address); err != nil {
				return err
			}
		}
	}
	return nil
}

// ldapAddress drops the prefix of proxyAddresses: "SMTP:a@b" is a@b, other types
// ("X500:...", "sip:...") are no mail addresses.
func ldapAddress(v string) (string, bool) {
	v = strings.TrimSpace(v)
	kind, rest, found := strings.Cut(v, ":")
	if !found || strings.ContainsAny(kind, `@"`) {
		return v, v != ""
	}
	if strings.EqualFold(kind, "smtp") || strings.EqualFold(kind, "mailto") {
		return rest, rest != ""
	}
	return "", false
}
