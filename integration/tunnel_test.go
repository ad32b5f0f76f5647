package integration

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
	"understudy/integration/servers"
)

// pair is two daemons that know each other, site a being active for ever.
type pair struct {
	a, b *lab.Understudy
	// sieve and web are their public addresses, of a and b.
	sieve, web [2]string
}

// newPair starts both sites as an operator would: peer init at both, pins carried
// across. settings are added to both configurations.
func newPair(t *testing.T, sieve, web [2]*servers.Proxied, settings lab.Settings) *pair {
	t.Helper()
	p := &pair{}
	var daemons [2]*lab.Understudy
	var addr, pins [2]string
	for i, site := range []string{"a", "b"} {
		addr[i], p.sieve[i], p.web[i] = lab.FreeAddr(t), lab.FreeAddr(t), lab.FreeAddr(t)
		set := lab.Settings{
			"site": site, "smtp.deliver.local": "smtp://127.0.0.1:9", "peer.listen": addr[i],
			"tunnel.services.sieve.listen": p.sieve[i], "tunnel.services.sieve.local": sieve[i].Addr,
			"tunnel.services.web.listen": p.web[i], "tunnel.services.web.local": web[i].Addr,
		}
		maps.Copy(set, settings)
		daemons[i] = lab.NewUnderstudy(t, "smtp://127.0.0.1:9", set)
		out, _ := daemons[i].CLI("peer", "init", "--json")
		var made struct {
			Pin, Pairing string
			Created      bool
		}
		if err := json.Unmarshal([]byte(out), &made); err != nil || !made.Created {
			t.Fatalf("peer init: %v\n%s", err, out)
		}
		pins[i] = made.Pin
		if out, _ := daemons[i].CLI("peer", "show"); !strings.Contains(out, made.Pin) || !strings.Contains(out, made.Pairing) {
			t.Errorf("peer show does not show the key again:\n%s", out)
		}
	}
	for i, d := range daemons {
		d.Set(lab.Settings{"peer.address": addr[1-i], "peer.pins": pins[1-i]})
		d.Start()
	}
	p.a, p.b = daemons[0], daemons[1]
	lab.Wait(t, 10*time.Second, "the link is up at both sites", func() error {
		for _, d := range daemons {
			if s := statusOf(t, d); !strings.Contains(s.Parts["Peer"], "round trip") {
				return errors.New(s.Parts["Peer"])
			}
		}
		return nil
	})
	return p
}

type siteStatus struct {
	Role  string
	Parts map[string]string
}

func statusOf(t *testing.T, d *lab.Understudy) siteStatus {
	t.Helper()
	out, _ := d.CLI("status", "--json")
	var s siteStatus
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
	return s
}

// dialFrom connects from an address of this machine.
func dialFrom(t *testing.T, from, to string) (net.Conn, error) {
	t.Helper()
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	c, err := d.DialContext(t.Context(), "tcp", to)
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	}
	return c, err
}

// login opens a ManageSieve session and returns the server's greeting.
func login(t *testing.T, from, to, name string) (net.Conn, *bufio.Reader, string, error) {
	t.Helper()
	c, err := dialFrom(t, from, to)
	if err != nil {
		return nil, nil, "", err
	}
	r := bufio.NewReader(c)
	greeting, err := untilOK(r)
	if err != nil {
		return nil, nil, "", err
	}
	secret := base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00x"))
	if _, err := fmt.Fprintf(c, "AUTHENTICATE \"PLAIN\" %q\r\n", secret); err != nil {
		return nil, nil, "", err
	}
	_, err = untilOK(r)
	return c, r, greeting, err
}

// untilOK reads an answer of ManageSieve (RFC 5804, section 1.3).
func untilOK(r *bufio.Reader) (string, error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		switch word, _, _ := strings.Cut(line, " "); word {
		case "OK":
			return line, nil
		case "NO", "BYE":
			return "", errors.New(line)
		}
	}
}

func proxiedServers(t *testing.T) (sieve, web [2]*servers.Proxied) {
	t.Helper()
	require.Root(t)
	require.Command(t, "dovecot", "/usr/lib/dovecot/managesieve-login", "nginx")
	for i, site := range []string{"a", "b"} {
		sieve[i], web[i] = servers.ProxiedSieve(t, "site-"+site), servers.ProxiedWeb(t, "site-"+site)
	}
	return sieve, web
}

// TestTunnelTellsTheClientsAddress: clients that arrive at the wrong site are
// served by the right one, whose servers log where they really come from.
func TestTunnelTellsTheClientsAddress(t *testing.T) {
	t.Parallel()
	sieve, web := proxiedServers(t)
	require.Command(t, "postfix")
	mail := lab.NewPostfix(t, lab.PostfixConfig{Domain: "example.test", Main: map[string]string{"smtpd_upstream_proxy_protocol": "haproxy"}})
	mail.Launch()
	submission := lab.FreeAddr(t)
	p := newPair(t, sieve, web, lab.Settings{"tunnel.services.submission.local": mail.Addr})
	p.b.Stop()
	p.b.Set(lab.Settings{"tunnel.services.submission.listen": submission})
	p.b.Start()
	lab.Wait(t, 10*time.Second, "the link is up again", func() error {
		if s := statusOf(t, p.b); !strings.Contains(s.Parts["Peer"], "round trip") {
			return errors.New(s.Parts["Peer"])
		}
		return nil
	})
	const clients = 40
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			from := fmt.Sprintf("127.77.%d.%d", i, i+1)
			_, _, greeting, err := login(t, from, p.sieve[1], fmt.Sprintf("user%d", i))
			if err != nil || !strings.Contains(greeting, "site-a") {
				t.Errorf("client %d at site b: %q, %v", i, greeting, err)
			}
			s, err := dialFrom(t, from, submission)
			if err != nil {
				t.Error(err)
				return
			}
			if line, err := bufio.NewReader(s).ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
				t.Errorf("submission for client %d: %q, %v", i, line, err)
			}
			c, err := dialFrom(t, from, p.web[1])
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, "GET / HTTP/1.0\r\nHost: x\r\n\r\n")
			page, err := io.ReadAll(c)
			if err != nil || !strings.HasSuffix(string(page), "site-a "+from+"\n") {
				t.Errorf("page for client %d: %q, %v", i, page, err)
			}
		})
	}
	wg.Wait()
	lab.Wait(t, 5*time.Second, "Dovecot and Postfix have logged all", func() error {
		text := sieve[0].Log()
		submitted, err := os.ReadFile(filepath.Join(mail.Dir, "postfix.log"))
		if err != nil {
			return err
		}
		for i := range clients {
			if want := fmt.Sprintf("user=<user%d>, rip=127.77.%d.%d\n", i, i, i+1); !strings.Contains(text, want) {
				return fmt.Errorf("no %q in the log:\n%s", want, text[:min(len(text), 600)])
			}
			if want := fmt.Sprintf("connect from unknown[127.77.%d.%d]", i, i+1); !bytes.Contains(submitted, []byte(want)) {
				return fmt.Errorf("no %q in Postfix's log", want)
			}
		}
		return nil
	})
	if strings.Contains(sieve[1].Log(), "rip=127.77.") {
		t.Error("the standby's Dovecot has seen a client")
	}
	if s := statusOf(t, p.b); s.Role != "standby" || !strings.Contains(s.Parts["Tunnel"], "sieve across") {
		t.Errorf("status of b: %+v", s)
	}
}

// TestBanHoldsAtBothSites: what is banned at one site is kept out of the other,
// also an open session; and lifted again.
func TestBanHoldsAtBothSites(t *testing.T) {
	t.Parallel()
	sieve, web := proxiedServers(t)
	p := newPair(t, sieve, web, nil)
	const from = "127.77.99.1"
	c, r, _, err := login(t, from, p.sieve[1], "jane")
	if err != nil {
		t.Fatal(err)
	}
	p.a.CLI("ban", from, "--for", "1h", "--reason", "guesses passwords")
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(r); errors.Is(err, net.ErrClosed) || isTimeout(err) {
		t.Errorf("the open session stays: %v", err)
	}
	for name, addr := range map[string]string{"sieve at a": p.sieve[0], "sieve at b": p.sieve[1], "mail at a": p.a.SMTP, "mail at b": p.b.SMTP} {
		lab.Wait(t, 5*time.Second, name+" refuses", func() error {
			c, err := dialFrom(t, from, addr)
			if err != nil {
				return nil //nolint:nilerr // refused is what is wanted
			}
			if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				return errors.New(line)
			}
			return nil
		})
	}
	if _, _, _, err := login(t, "127.77.99.2", p.sieve[1], "joe"); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	out, _ := p.b.CLI("bans", "--json")
	var list []struct{ Network, Reason, Site string }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || list[0].Network != from+"/32" || list[0].Site != "a" {
		t.Errorf("bans at b: %v\n%s", err, out)
	}
	p.b.CLI("unban", from)
	lab.Wait(t, 5*time.Second, "the client is back at site a", func() error {
		_, _, _, err := login(t, from, p.sieve[0], "jane")
		return err
	})
}

// TestSiteDiesMidSession: clients of a site that dies are not left hanging, and
// mail goes on where they are; webmail, which cannot be merged, is refused.
func TestSiteDiesMidSession(t *testing.T) {
	t.Parallel()
	sieve, web := proxiedServers(t)
	p := newPair(t, sieve, web, nil)
	_, r, _, err := login(t, "127.77.98.1", p.sieve[1], "jane")
	if err != nil {
		t.Fatal(err)
	}
	p.a.Kill()
	began := time.Now()
	if _, err := io.ReadAll(r); isTimeout(err) {
		t.Error("the session hangs")
	}
	t.Logf("the session ended %s after the site had died", time.Since(began).Round(time.Millisecond))
	lab.Wait(t, 20*time.Second, "mail goes on at site b", func() error {
		_, _, greeting, err := login(t, "127.77.98.1", p.sieve[1], "jane")
		if err == nil && !strings.Contains(greeting, "site-b") {
			err = errors.New(greeting)
		}
		return err
	})
	t.Logf("mail goes on at site b after %s", time.Since(began).Round(time.Millisecond))
	c, err := dialFrom(t, "127.77.98.1", p.web[1])
	if err == nil {
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		var page []byte
		if page, err = io.ReadAll(c); isTimeout(err) || len(page) > 0 {
			t.Errorf("webmail while nobody is active: %q, %v", page, err)
		}
	}
	p.a.Start()
	lab.Wait(t, 15*time.Second, "clients reach site a again", func() error {
		_, _, greeting, err := login(t, "127.77.98.1", p.sieve[1], "jane")
		if err == nil && !strings.Contains(greeting, "site-a") {
			err = errors.New(greeting)
		}
		return err
	})
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
