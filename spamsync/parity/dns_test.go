package parity

import (
	"context"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// nameServer answers questions for A from a table; a name that is missing does not
// exist, and an empty answer is SERVFAIL.
func nameServer(t *testing.T, names map[string]string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // a test's listener
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name := q.Question[0].Name
		addr, known := names[name]
		switch {
		case !known:
			m.Rcode = dns.RcodeNameError
		case addr == "":
			m.Rcode = dns.RcodeServerFailure
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.ParseIP(addr)})
		}
		_ = w.WriteMsg(m)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.ActivateAndServe()
	}()
	t.Cleanup(func() {
		_ = pc.Close()
		<-ended
	})
	return pc.LocalAddr().String()
}

// TestDNSView: a block list that answers one site and not the other is named.
func TestDNSView(t *testing.T) {
	t.Parallel()
	here := nameServer(t, map[string]string{"listed.zone.example.": "127.0.0.2", "blocked.zone.example.": "127.0.0.2", "sick.zone.example.": "127.0.0.2"})
	peer := nameServer(t, map[string]string{"listed.zone.example.": "127.0.0.2", "blocked.zone.example.": "127.255.255.254", "sick.zone.example.": ""})
	cfg := DefaultConfig()
	cfg.Names = []string{"listed.zone.example", "blocked.zone.example", "sick.zone.example", "none.zone.example"}
	cfg.Resolver, cfg.PeerResolver = here, peer
	c := &Comparer{cfg: cfg}
	var r Report
	if err := c.compareDNS(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	want := []Difference{
		{Aspect: "dns", Name: "blocked.zone.example", Here: "127.0.0.2", Peer: "127.255.255.254"},
		{Aspect: "dns", Name: "sick.zone.example", Here: "127.0.0.2", Peer: "no answer"},
	}
	if d := cmp.Diff(want, r.Differences); d != "" {
		t.Error(d)
	}
	if r.DNS["none.zone.example"] != "no such name" {
		t.Errorf("view %v", r.DNS)
	}
	// The same server twice is no difference; a context that ended is an error.
	c.cfg.PeerResolver = here
	r = Report{}
	if err := c.compareDNS(t.Context(), &r); err != nil || len(r.Differences) != 0 {
		t.Errorf("the same twice: %v, %v", r.Differences, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.compareDNS(ctx, &r); err == nil {
		t.Error("a comparison under a context that has ended")
	}
}
