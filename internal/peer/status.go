package peer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Status is what is known about the link and the other site.
type Status struct {
	// Site is the other site's name, Program its version; empty before the first
	// greeting. They are kept while the link is down.
	Site    string `json:"site"`
	Program string `json:"program,omitempty"`
	// Up: heard within Config.Silence. Since is when that began, or ended.
	Up    bool      `json:"up"`
	Since time.Time `json:"since"`
	// Heard is when the other site last said anything; zero: never.
	Heard time.Time `json:"heard,omitzero"`
	// Connections are the RPC connections; Protocol is the version of the newest.
	Connections int `json:"connections"`
	Protocol    int `json:"protocol,omitempty"`
	// RTT is the shortest round trip of the last eight; ClockOffset is how far the
	// other clock is ahead of this one, measured there. Zero before a measurement.
	RTT         time.Duration `json:"rtt_ns,omitempty"`
	ClockOffset time.Duration `json:"clock_offset_ns,omitempty"`
	// Config and PeerConfig are the hashes of what both must agree on; Differing
	// names the keys in which they do not. PeerConfig is empty before a greeting.
	Config     string   `json:"config,omitempty"`
	PeerConfig string   `json:"peer_config,omitempty"`
	Differing  []string `json:"differing,omitempty"`
	// Spares are connections of the other site's that this one may use.
	Spares int `json:"spares,omitempty"`
	// Pools are the warm connections by service.
	Pools map[Service]PoolStatus `json:"pools,omitempty"`
	// Fault is why there is no connection.
	Fault string `json:"fault,omitempty"`
	// Pin is this site's own.
	Pin string `json:"pin"`
}

// Status returns a copy; it does not ask the other site.
func (l *Link) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		Site: l.peer.Site, Program: l.peer.Program, Up: l.up, Since: l.since, Heard: l.heard,
		Connections: len(l.controls), Spares: len(l.spares), Fault: l.lastFault, Pin: l.key.pin.String(),
		Config: Hash(l.summary),
	}
	if s.Site == "" {
		s.Site = l.deps.PeerSite
	}
	if n := len(l.controls); n > 0 {
		s.Protocol = l.controls[n-1].version
	}
	if best := l.best(); best != nil {
		s.RTT, s.ClockOffset = best.rtt, best.offset
	}
	if l.peer.Config != nil {
		s.PeerConfig, s.Differing = Hash(l.peer.Config), differing(l.summary, l.peer.Config)
	}
	for name, p := range l.pools {
		if s.Pools == nil {
			s.Pools = map[Service]PoolStatus{}
		}
		s.Pools[name] = p.status()
	}
	return s
}

// SetConfig says what this site is configured to be, for a comparison: the keys
// both sites must agree on, each with a hash of its value. A change is told at once.
func (l *Link) SetConfig(summary map[string]string) {
	l.mu.Lock()
	l.summary = maps.Clone(summary)
	if l.summary == nil {
		l.summary = map[string]string{}
	}
	l.revision++
	controls := slices.Clone(l.controls)
	l.mu.Unlock()
	for _, c := range controls {
		_ = c.write(&message{Kind: kindConfig, Config: summary}) // a broken one says it again in its greeting
	}
}

// Hash is the hash of a whole summary, eight hexadecimal digits; empty for none.
func Hash(summary map[string]string) string {
	if len(summary) == 0 {
		return ""
	}
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(summary)) {
		_, _ = fmt.Fprintf(h, "%q=%q\n", k, summary[k]) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil)[:4])
}

// differing names the keys in which two summaries disagree, in order.
func differing(a, b map[string]string) []string {
	var out []string
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			out = append(out, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// sample is one measurement of the link.
type sample struct{ rtt, offset time.Duration }

// samplesKept are measurements of which the one with the shortest round trip
// counts: its offset has the smallest error.
const samplesKept = 8

// measured takes the four times of a ping (as NTP does, RFC 5905, section 8).
func (l *Link) measured(sent, back time.Time, received, answered int64) {
	rtt := back.Sub(sent) - time.Duration(max(answered-received, 0))
	middle := (received-sent.UnixNano())/2 + (answered-back.UnixNano())/2
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, sample{rtt: max(rtt, 0), offset: time.Duration(middle)})
	if len(l.samples) > samplesKept {
		l.samples = slices.Delete(l.samples, 0, 1)
	}
}

// best is the sample with the shortest round trip; the caller holds mu.
func (l *Link) best() *sample {
	var best *sample
	for i := range l.samples {
		if best == nil || l.samples[i].rtt < best.rtt {
			best = &l.samples[i]
		}
	}
	return best
}

// RTT is the shortest of the last round trips; 0 before the first.
func (l *Link) RTT() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.best(); b != nil {
		return b.rtt
	}
	return 0
}

// heardFrom notes a sign of life, and what it says about the other site.
func (l *Link) heardFrom(ctl *control, m *message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = time.Now()
	if m.Kind == kindConfig && m.Config != nil {
		l.peer.Config = m.Config
	}
	// Calls take the connection that was heard last.
	if n := len(l.controls); n > 1 && l.controls[n-1] != ctl {
		if i := slices.Index(l.controls, ctl); i >= 0 {
			l.controls = append(slices.Delete(l.controls, i, i+1), ctl)
		}
	}
	if !l.up {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// watch tells when the link comes up and goes down.
func (l *Link) watch(ctx context.Context) {
	t := time.NewTicker(max(l.cfg.Silence/10, 10*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-t.C:
		}
		l.judge()
	}
}

// judge compares what was heard with the clock.
func (l *Link) judge() {
	l.mu.Lock()
	up := !l.heard.IsZero() && time.Since(l.heard) < l.cfg.Silence
	changed := up != l.up
	var told []func(bool)
	if changed {
		l.up, l.since = up, time.Now()
		told = slices.Clone(l.changed)
		if !up {
			l.samples = nil
		}
	}
	var offset time.Duration
	if b := l.best(); b != nil {
		offset = b.offset
	}
	differ := differing(l.summary, l.peer.Config)
	known := l.peer.Config != nil
	l.mu.Unlock()
	if changed {
		l.log.Info("link to the other site", "up", up)
		for _, f := range told {
			f(up)
		}
	}
	if l.deps.Alarms == nil {
		return
	}
	l.alarm(len(*l.pins.Load()) == 0, "peer:pins", "the sites are not paired: run understudy peer show at the other site, and write its pin into peer.pins here")
	l.alarm(!up && time.Since(l.sinceWhen()) > l.cfg.Silence, "peer:down", "the other site is not heard; see understudy status")
	l.alarm(offset.Abs() > l.cfg.MaxClockOffset, "peer:clock",
		fmt.Sprintf("the two sites' clocks differ by more than %s; check time synchronisation at both", l.cfg.MaxClockOffset))
	l.alarm(known && len(differ) > 0, "peer:config", "the two sites are configured differently: "+strings.Join(differ, ", "))
}

func (l *Link) sinceWhen() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since
}

func (l *Link) alarm(raised bool, key, text string) {
	if raised {
		l.deps.Alarms.Raise(key, text)
	} else {
		l.deps.Alarms.Clear(key)
	}
}
