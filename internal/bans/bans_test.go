package bans

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"understudy/internal/durable/simfs"
)

func open(t *testing.T, file, site string, now *time.Time) *List {
	t.Helper()
	l, err := Open(file, Deps{Site: site, Now: func() time.Time { return *now }})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestBan(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	file := filepath.Join(t.TempDir(), "bans.json")
	l := open(t, file, "a", &now)
	net4, net6 := netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::/48")
	if err := l.Ban(net4, time.Hour, "brute force"); err != nil {
		t.Fatal(err)
	}
	if err := l.Ban(net6, 0, ""); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"192.0.2.200": true, "::ffff:192.0.2.1": true, "192.0.3.1": false,
		"2001:db8::1": true, "2001:db8:1::1": false, "fe80::1%eth0": false,
	} {
		if got := l.Banned(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s banned: %t", text, got)
		}
	}
	if l.Banned(netip.Addr{}) {
		t.Error("no address is banned")
	}
	now = now.Add(time.Hour)
	l = open(t, file, "a", &now) // a restart
	if l.Banned(netip.MustParseAddr("192.0.2.1")) || !l.Banned(netip.MustParseAddr("2001:db8::1")) {
		t.Error("after an hour and a restart")
	}
	if err := l.Unban(net6); err != nil {
		t.Fatal(err)
	}
	if err := l.Unban(net6); !errors.Is(err, ErrNotBanned) {
		t.Errorf("lifted twice: %v", err)
	}
	if len(l.List()) != 0 {
		t.Errorf("in force: %v", l.List())
	}
	for _, wide := range []string{"0.0.0.0/0", "10.0.0.0/7", "::/0"} {
		if err := l.Ban(netip.MustParsePrefix(wide), 0, ""); !errors.Is(err, ErrTooWide) {
			t.Errorf("%s: %v", wide, err)
		}
	}
}

// TestSitesConverge: whatever is said at both sites, and however often and in
// which order the lists are exchanged, both end with the same.
func TestSitesConverge(t *testing.T) {
	t.Parallel()
	networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32")}
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
		var sites [2]*List
		for i := range sites {
			var err error
			sites[i], err = Open("/bans.json", Deps{Site: string(rune('a' + i)), FS: simfs.New(), Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			at := sites[rapid.IntRange(0, 1).Draw(t, "site")]
			p := rapid.SampledFrom(networks).Draw(t, "network")
			switch rapid.IntRange(0, 3).Draw(t, "action") {
			case 0:
				if err := at.Ban(p, time.Duration(rapid.IntRange(0, 3).Draw(t, "hours"))*time.Hour, "x"); err != nil {
					t.Fatal(err)
				}
			case 1:
				if err := at.Unban(p); err != nil && !errors.Is(err, ErrNotBanned) {
					t.Fatal(err)
				}
			case 2:
				if _, err := sites[0].Merge(sites[1].All()); err != nil {
					t.Fatal(err)
				}
			case 3:
				now = now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "minutes")) * time.Minute)
			}
		}
		for i := range 2 {
			if _, err := sites[i].Merge(sites[1-i].All()); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(sites[0].All(), sites[1].All(), cmpopts.EquateComparable(netip.Prefix{})); d != "" {
			t.Fatalf("the sites differ:\n%s", d)
		}
		if changed, _ := sites[0].Merge(sites[1].All()); changed {
			t.Fatal("a second merge changes something")
		}
	})
}

func TestGuard(t *testing.T) {
	t.Parallel()
	now := time.Now()
	list := open(t, filepath.Join(t.TempDir(), "bans.json"), "a", &now)
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := list.Guard(inner)
	defer func() { _ = l.Close() }()
	if err := list.Ban(netip.MustParsePrefix("127.0.0.1/32"), 0, ""); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
	}()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String())
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a banned client was served")
		}
		_ = c.Close()
	}
	if err := list.Unban(netip.MustParsePrefix("127.0.0.1/32")); err != nil {
		t.Fatal(err)
	}
	if c, err = new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	select {
	case s := <-accepted:
		_ = s.Close()
	case <-time.After(5 * time.Second):
		t.Error("a client whose ban was lifted is not served")
	}
}
