package parity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/spamsync/engine/link"
)

// Fingerprint is what one engine's verdicts depend on.
type Fingerprint struct {
	// Engine is "rspamd" or "builtin".
	Engine  string `json:"engine"`
	Version string `json:"version"`
	// Symbols are the scores by symbol; Groups says which group (as a rule, which
	// module) a symbol is of.
	Symbols map[string]float64 `json:"symbols"`
	Groups  map[string]string  `json:"-"`
	// Actions are the thresholds; an action without one is absent.
	Actions map[string]float64 `json:"actions"`
	// Maps are digests of the content by the name of the file.
	Maps map[string]string `json:"maps"`
	// Learned is how many messages the classifier learned.
	Learned int `json:"learned"`
	// Clock is how far the machine's clock is ahead of ours, to a second.
	Clock time.Duration `json:"-"`
}

// fingerprint asks one controller.
func (r *Rspamd) fingerprint(ctx context.Context) (Fingerprint, error) {
	f := Fingerprint{
		Engine: "rspamd", Symbols: make(map[string]float64), Groups: make(map[string]string),
		Actions: make(map[string]float64), Maps: make(map[string]string),
	}
	var stat struct {
		Version string `json:"version"`
		Files   []struct {
			Revision int `json:"revision"`
		} `json:"statfiles"`
	}
	asked := time.Now()
	header, err := r.controller(ctx, "/stat", nil, &stat)
	if err != nil {
		return f, err
	}
	if t, err := http.ParseTime(header.Get("Date")); err == nil {
		f.Clock = t.Add(time.Second / 2).Sub(asked)
	}
	f.Version = link.Text(stat.Version, 64)
	for _, s := range stat.Files {
		f.Learned += s.Revision
	}
	var groups []struct {
		Group string `json:"group"`
		Rules []struct {
			Symbol string  `json:"symbol"`
			Weight float64 `json:"weight"`
		} `json:"rules"`
	}
	if _, err := r.controller(ctx, "/symbols", nil, &groups); err != nil {
		return f, err
	}
	for _, g := range groups {
		for _, s := range g.Rules {
			f.Symbols[s.Symbol], f.Groups[s.Symbol] = s.Weight, g.Group
		}
	}
	var actions []struct {
		Action string   `json:"action"`
		Value  *float64 `json:"value"`
	}
	if _, err := r.controller(ctx, "/actions", nil, &actions); err != nil {
		return f, err
	}
	for _, a := range actions {
		if a.Value != nil {
			f.Actions[a.Action] = *a.Value
		}
	}
	return f, r.maps(ctx, &f)
}

// maps reads the content of every map the controller shows. Numbers and paths of
// maps differ from machine to machine, and a map that several rules share is shown
// with the purpose of any of them: they are named by file alone.
func (r *Rspamd) maps(ctx context.Context, f *Fingerprint) error {
	var maps []struct {
		ID  uint64 `json:"map"`
		URI string `json:"uri"`
	}
	if _, err := r.controller(ctx, "/maps", nil, &maps); err != nil {
		return err
	}
	for _, m := range maps {
		var content []byte
		if _, err := r.controller(ctx, "/getmap", http.Header{"Map": {strconv.FormatUint(m.ID, 10)}}, &content); err != nil {
			return fmt.Errorf("map %s: %w", m.URI, err)
		}
		name := link.Text(path.Base(m.URI), 120)
		sum := sha256.Sum256(content)
		digest := hex.EncodeToString(sum[:6])
		if other, taken := f.Maps[name]; taken { // several of one name count together
			digest = joined(other, digest)
		}
		f.Maps[name] = digest
	}
	return nil
}

// joined puts digests together in an order of their own.
func joined(a, b string) string {
	list := append(strings.Split(a, " "), b)
	slices.Sort(list)
	return strings.Join(slices.Compact(list), " ")
}

// differ names what two fingerprints do not share. Symbols that only one site has
// are named by group where a group is missing as a whole.
func (f Fingerprint) differ(peer Fingerprint) []Difference {
	var out []Difference
	if f.Version != peer.Version {
		out = append(out, Difference{Aspect: "version", Here: f.Version, Peer: peer.Version})
	}
	out = append(out, differValues("symbol", f.Symbols, peer.Symbols)...)
	for i, d := range out {
		group := f.Groups[d.Name]
		if group == "" {
			group = peer.Groups[d.Name]
		}
		if d.Aspect == "symbol" && group != "" {
			out[i].Name += " of group " + group
		}
	}
	out = append(out, differValues("threshold", f.Actions, peer.Actions)...)
	for _, name := range keys(f.Maps, peer.Maps) {
		if a, b := f.Maps[name], peer.Maps[name]; a != b {
			out = append(out, Difference{Aspect: "map", Name: name, Here: a, Peer: b})
		}
	}
	return out
}

func differValues(aspect string, here, peer map[string]float64) []Difference {
	var out []Difference
	for _, name := range keys(here, peer) {
		a, inHere := here[name]
		b, inPeer := peer[name]
		d := Difference{Aspect: aspect, Name: name}
		if inHere {
			d.Here = number(a)
		}
		if inPeer {
			d.Peer = number(b)
		}
		if d.Here != d.Peer {
			out = append(out, d)
		}
	}
	return out
}

// keys are the keys of both, sorted.
func keys[V any](a, b map[string]V) []string {
	out := make([]string, 0, len(a))
	for k := range a {
		out = append(out, k)
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// dnsView asks one DNS server for some names.
func dnsView(ctx context.Context, server string, names []string) map[string]string {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, server)
	}}
	out := make(map[string]string, len(names))
	for _, name := range names {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		addrs, err := resolver.LookupHost(ctx, strings.TrimSuffix(name, ".")+".")
		cancel()
		slices.Sort(addrs)
		out[name] = strings.Join(addrs, " ")
		var dnsErr *net.DNSError
		switch {
		case err == nil:
		case errors.As(err, &dnsErr) && dnsErr.IsNotFound:
			out[name] = "no such name"
		default:
			out[name] = "no answer"
		}
	}
	return out
}
