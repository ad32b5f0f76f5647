package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"understudy/dnsfailover"
	"understudy/dnsfailover/hosted"
	"understudy/dnsfailover/probe"
	"understudy/dnsfailover/rfc2136"
	"understudy/dnsfailover/witness"
	"understudy/internal/twin"
)

// Failover is the section "failover": who is active, and what follows from it.
// Without it the site named primary is active for ever.
type Failover struct {
	// Decide is the decision's own part of the section.
	Decide dnsfailover.Config `key:",inline"`
	// Register is where both sites agree.
	Register Register `key:"register"`
	// Zones hold managed records that are not in the register's zone.
	Zones []rfc2136.Config `key:"zones" doc:"Further zones that hold managed records; their records follow right after the role has moved."`
	// Hosted are zones whose host has an API and no UPDATE.
	Hosted []hosted.Config `key:"hosted" doc:"Zones with managed records at a DNS host that has an API and takes no UPDATE."`
	// Probes say whether a site works.
	Probes []probe.Config `key:"probes" doc:"What says that a site works, tried end to end by that site itself and by the other one."`
	// Twin is what both sites must have alike.
	Twin twin.Config `key:"twin"`
	// HooksSocket is where hooks are run as root.
	HooksSocket string `key:"hooks_socket" default:"/run/understudy/hooks.sock" doc:"Socket of understudy-hooks, which runs the hooks as root."`
}

// Register is the section "failover.register".
type Register struct {
	Kind   string `key:"kind" enum:"rfc2136,witness" default:"rfc2136" doc:"Where the register is: in a DNS zone that takes UPDATE, or at a witness."`
	Server string `key:"server" doc:"Primary name server of the register's zone, as ns.example.net:53; in neither site."`
	Zone   string `key:"zone" doc:"Zone that holds the register and the records that move with it."`
	Name   string `key:"name" default:"_understudy" doc:"Name of the register's TXT record within the zone."`
	TSIG   TSIG   `key:"tsig"`
	// Witness is used with kind witness.
	Witness Witness `key:"witness"`
}

// TSIG is the section "failover.register.tsig".
type TSIG struct {
	Name       string `key:"name" doc:"Name of this site's TSIG key; each site has its own."`
	Algorithm  string `key:"algorithm" enum:"hmac-sha256,hmac-sha384,hmac-sha512" default:"hmac-sha256" doc:"Algorithm of the TSIG key."`
	SecretFile string `key:"secret_file" secret:"true" doc:"File with the TSIG key's secret in base64."`
}

// Witness is the section "failover.register.witness".
type Witness struct {
	Address string   `key:"address" doc:"Where the witness listens, as witness.example.org:7027; in neither site."`
	Pins    []string `key:"pins" single:"true" doc:"Public key of the witness (sha256:...); two while it is being replaced."`
}

// The kinds of registers.
const (
	RegisterRFC2136 = "rfc2136"
	RegisterWitness = "witness"
)

// On says whether there is a failover.
func (f Failover) On() bool { return f.Decide.On() }

// RFC2136 is the register's zone in the words of the package.
func (f Failover) RFC2136() rfc2136.Config {
	r := f.Register
	return rfc2136.Config{
		Server: r.Server, Zone: r.Zone, Name: r.Name, Timeout: f.Decide.Timing.Request,
		TSIG: rfc2136.TSIG{Name: r.TSIG.Name, Algorithm: r.TSIG.Algorithm, SecretFile: r.TSIG.SecretFile},
	}
}

// WitnessClient is the witness in the words of the package.
func (f Failover) WitnessClient() witness.Config {
	return witness.Config{Address: f.Register.Witness.Address, Pins: f.Register.Witness.Pins, Timeout: f.Decide.Timing.Request}
}

// completeFailover lets a section that names a register observe.
func (c *Config) completeFailover() {
	f := &c.Failover
	if f.Decide.Mode == "" && (f.Register.Server != "" || f.Register.Witness.Address != "" || len(f.Decide.Records) > 0) {
		f.Decide.Mode = dnsfailover.Observe
	}
	for i := range f.Zones {
		if f.Zones[i].Timeout == 0 {
			f.Zones[i].Timeout = 3 * time.Second
		}
	}
}

// checkFailover holds the rules between the section and the rest.
func (c *Config) checkFailover(report reporter) {
	f := c.Failover
	if !f.On() {
		return
	}
	under := func(path string, err error) {
		for _, e := range split(err) {
			key, text, ok := strings.Cut(e.Error(), ": ")
			if !ok || strings.ContainsAny(key, " \"") {
				report(path, e.Error())
				continue
			}
			report(path+"."+key, text)
		}
	}
	if f.Register.Kind == RegisterWitness {
		under("failover.register.witness", f.WitnessClient().Validate())
	} else {
		under("failover.register", f.RFC2136().Validate())
	}
	for i, z := range f.Zones {
		under(indexed("failover.zones", i), z.Validate())
	}
	for i, z := range f.Hosted {
		under(indexed("failover.hosted", i), z.Validate())
		for _, r := range f.Decide.Records {
			if z.Holds(r.Name) && !z.Whole() && (r.Type == "MX" || len(r.A) > 1 || len(r.B) > 1 || r.Publish == dnsfailover.PublishBoth) {
				report(indexed("failover.hosted", i), fmt.Sprintf("%s %s has several values; at %s only records with one can be changed", r.Name, r.Type, z.Provider))
			}
		}
	}
	for i, p := range f.Probes {
		under(indexed("failover.probes", i), p.Validate())
		if p.Site != "" && p.Site != c.Site && p.Site != c.Peer() {
			report(indexed("failover.probes", i), fmt.Sprintf("site: %q is not one of sites", p.Site))
		}
	}
	if !c.Link.On() {
		report("failover", "needs the section peer: without the link no site can hand over to the other")
	}
	c.checkWhere(report)
	if f.Decide.Mode == dnsfailover.Automatic {
		if len(probe.About(f.Probes, c.Site, c.Site)) == 0 {
			report("failover.probes", fmt.Sprintf("none is about site %s itself; mode automatic needs one", c.Site))
		}
		if len(probe.About(f.Probes, c.Site, c.Peer())) == 0 {
			report("failover.probes", fmt.Sprintf("none that site %s tries is about site %s; mode automatic needs one", c.Site, c.Peer()))
		}
	}
	if len(c.SMTP.Listen) > 0 && f.Decide.Mode != dnsfailover.Observe {
		if len(c.SMTP.Deliver.ToPeer) == 0 {
			report("smtp.deliver.to_peer", "is missing; with failover either site may be standby")
		}
		if len(c.SMTP.Deliver.Local) == 0 {
			report("smtp.deliver.local", "is missing; with failover either site may be active")
		}
	}
}

// checkWhere wants the register to be in neither site: who holds it decides when
// one of them is gone.
func (c *Config) checkWhere(report reporter) {
	f := c.Failover
	path, at := "failover.register.server", f.Register.Server
	if f.Register.Kind == RegisterWitness {
		path, at = "failover.register.witness.address", f.Register.Witness.Address
	}
	host, _, err := net.SplitHostPort(at)
	if err != nil {
		return
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return // a laboratory
	}
	name := dnsfailover.CanonicalName(host)
	inSite := func(value string) bool { return value == host || dnsfailover.CanonicalName(value) == name }
	peerHost, _, _ := net.SplitHostPort(c.Link.Address)
	for _, h := range []string{peerHost, c.SMTP.Hostname} {
		if h != "" && inSite(h) {
			report(path, fmt.Sprintf("%s is one of the two sites: when that one is gone, nobody could decide", host))
			return
		}
	}
	for _, r := range f.Decide.Records {
		for _, list := range [][]string{r.A, r.B} {
			if slices.ContainsFunc(list, inSite) {
				report(path, fmt.Sprintf("%s is one of the two sites (%s): when that one is gone, nobody could decide", host, r.Name))
				return
			}
		}
	}
}
