package recipients

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// ldapServer answers BIND and paged SEARCH (RFC 4511, RFC 2696).
type ldapServer struct {
	t        *testing.T
	l        net.Listener
	password string
	entries  []map[string][]string
	hang     bool // do not answer searches
	failPage int  // the page that is answered "busy"; 0 is none

	mu      sync.Mutex
	filters []string
	pages   int
	wg      sync.WaitGroup
}

func startLDAP(t *testing.T) *ldapServer {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &ldapServer{t: t, l: l, password: "sesame"}
	ctx, cancel := context.WithCancel(context.Background())
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				defer stop()
				s.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		s.wg.Wait()
	})
	return s
}

func (s *ldapServer) serve(c net.Conn) {
	defer c.Close() //nolint:errcheck // a fake
	for {
		p, err := ber.ReadPacket(c)
		if err != nil || len(p.Children) < 2 {
			return
		}
		id, op := p.Children[0], p.Children[1]
		if op.Tag == ldap.ApplicationBindRequest {
			code := ldap.LDAPResultSuccess
			if op.Children[2].Data.String() != s.password {
				code = ldap.LDAPResultInvalidCredentials
			}
			s.send(c, id, result(ldap.ApplicationBindResponse, code), nil)
			continue
		}
		if op.Tag != ldap.ApplicationSearchRequest {
			return
		}
		if !s.hang {
			s.search(c, id, p)
		}
	}
}

func (s *ldapServer) search(c net.Conn, id, p *ber.Packet) {
	filter, err := ldap.DecompileFilter(p.Children[1].Children[6])
	if err != nil {
		filter = err.Error()
	}
	s.mu.Lock()
	s.filters = append(s.filters, filter)
	s.pages++
	page := s.pages
	s.mu.Unlock()
	size, from := len(s.entries), 0
	if len(p.Children) > 2 {
		for _, ch := range p.Children[2].Children {
			if ctl, err := ldap.DecodeControl(ch); err == nil {
				if pg, ok := ctl.(*ldap.ControlPaging); ok {
					size = int(pg.PagingSize)
					if _, err := fmt.Sscan(string(pg.Cookie), &from); err != nil {
						from = 0
					}
				}
			}
		}
	}
	if page == s.failPage {
		s.send(c, id, result(ldap.ApplicationSearchResultDone, ldap.LDAPResultBusy), nil)
		return
	}
	end := min(from+size, len(s.entries))
	for i, e := range s.entries[from:end] {
		r := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
		r.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, fmt.Sprintf("cn=%d", from+i), ""))
		attrs := ber.NewSequence("")
		for name, values := range e {
			a := ber.NewSequence("")
			a.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, name, ""))
			set := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
			for _, v := range values {
				set.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, v, ""))
			}
			a.AppendChild(set)
			attrs.AppendChild(a)
		}
		r.AppendChild(attrs)
		s.send(c, id, r, nil)
	}
	ctl := ldap.NewControlPaging(0)
	if end < len(s.entries) {
		ctl.SetCookie([]byte(fmt.Sprint(end)))
	}
	s.send(c, id, result(ldap.ApplicationSearchResultDone, ldap.LDAPResultSuccess), ctl)
}

func result(tag ber.Tag, code int) *ber.Packet {
	r := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	r.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(code), ""))
	r.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
	r.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
	return r
}

func (s *ldapServer) send(c net.Conn, id, op *ber.Packet, ctl ldap.Control) {
	p := ber.NewSequence("")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id.Value, ""))
	p.AppendChild(op)
	if ctl != nil {
		controls := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")
		controls.AppendChild(ctl.Encode())
		p.AppendChild(controls)
	}
	_, _ = c.Write(p.Bytes()) // a client that has gone will be noticed by the reader
}

func TestLDAP(t *testing.T) {
	t.Parallel()
	s := startLDAP(t)
	for i := range 2*ldapPage + 7 {
		s.entries = append(s.entries, map[string][]string{
			"mail":           {fmt.Sprintf("user%04d@example.com", i)},
			"proxyAddresses": {fmt.Sprintf("SMTP:proxy%04d@example.com", i), "X500:/o=Example"},
		})
	}
	secretFile := filepath.Join(t.TempDir(), "secret")
	write(t, secretFile, "sesame\n")
	f := &directorySearch{cfg: SourceConfig{
		URL: "ldap://" + s.l.Addr().String(), BindDN: "cn=reader", SecretFile: secretFile, Base: "dc=example,dc=com",
		Filter: "(&(objectClass=person)(mail=*))", Attributes: []string{"mail", "proxyAddresses"}, Timeout: 20 * time.Second,
	}}
	keys, _, err := fetchAll(t, f)
	if err != nil || len(keys) != 2*len(s.entries) || keys[0] != "proxy0000@example.com" {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	if s.pages != 3 || s.filters[0] != f.cfg.Filter {
		t.Errorf("%d pages, filters %q", s.pages, s.filters)
	}
	// A page that fails makes the whole answer worthless.
	s.failPage = s.pages + 2
	if _, _, err := fetchAll(t, f); err == nil || !strings.Contains(err.Error(), "search") {
		t.Errorf("error %v", err)
	}
	write(t, secretFile, "wrong\n")
	if _, _, err := fetchAll(t, f); err == nil || !strings.Contains(err.Error(), "bind") {
		t.Errorf("error %v", err)
	}
}

// The end of the context ends a server that does not answer.
func TestLDAPHangs(t *testing.T) {
	t.Parallel()
	s := startLDAP(t)
	s.hang = true
	f := &directorySearch{cfg: SourceConfig{URL: "ldap://" + s.l.Addr().String(), Base: "x", Filter: "(a=*)", Timeout: time.Minute}}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := f.fetch(ctx, newListing(rules{}, nil, nil))
		failed <- err
	}()
	cancel()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("hangs")
	}
}
