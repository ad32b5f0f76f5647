package parity

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Result is how a comparison ended.
type Result string

// The results.
const (
	// Equal: no message differs, and no fingerprint.
	Equal Result = "equal"
	// Noise: messages differ only as much as each site differs from itself.
	Noise Result = "noise"
	// Different: something differs; parity is broken.
	Different Result = "different"
)

// Report is the outcome of a comparison.
type Report struct {
	At       time.Time `json:"at"`
	Seconds  float64   `json:"seconds"`
	Site     string    `json:"site,omitempty"`
	PeerSite string    `json:"peer_site,omitempty"`
	Result   Result    `json:"result"`
	// Differences are all that was found, the messages' aside: those are in Probe.
	Differences []Difference `json:"differences"`
	// Unknown is what could not be compared, each with its reason.
	Unknown []string `json:"unknown,omitempty"`
	// Skipped is what nobody asked to compare; it is neither equal nor different.
	Skipped []string `json:"skipped,omitempty"`
	// Settings is how many settings of this site's configuration were compared.
	Settings int               `json:"settings,omitempty"`
	Here     Fingerprint       `json:"here"`
	Peer     Fingerprint       `json:"peer"`
	Redis    []RedisView       `json:"redis,omitempty"`
	DNS      map[string]string `json:"dns,omitempty"`
	// ClockOffsetSeconds is how far the peer's clock is ahead.
	ClockOffsetSeconds float64 `json:"clock_offset_seconds"`
	Probe              Probe   `json:"probe"`
	// Written is how much Redis had to replicate while the messages were judged, by
	// whomever; WriteChecked says that this was looked at.
	Written      int64 `json:"written_bytes"`
	WriteChecked bool  `json:"write_checked"`

	clocks []clock
}

// clock is one measure of how far the peer's clock is ahead.
type clock struct {
	name   string
	offset time.Duration
	// exact is the measure's own inaccuracy.
	exact time.Duration
}

// note records that a part could not be compared.
func (r *Report) note(part string, err error) {
	if err != nil {
		r.Unknown = append(r.Unknown, part+": "+err.Error())
	}
}

// compareClocks judges the most exact measure.
func (r *Report) compareClocks(limit time.Duration) {
	if len(r.clocks) == 0 {
		return
	}
	best := slices.MinFunc(r.clocks, func(a, b clock) int { return int(a.exact - b.exact) })
	r.ClockOffsetSeconds = best.offset.Seconds()
	if best.offset.Abs() > limit+best.exact {
		r.Differences = append(r.Differences, Difference{
			Aspect: "clock", Name: "(of " + best.name + ")", Here: "0s", Peer: best.offset.Round(time.Millisecond).String(),
		})
	}
}

// conclude sets the result.
func (r *Report) conclude() {
	r.Differences = append(r.Differences, r.Probe.Findings...)
	slices.SortStableFunc(r.Differences, byName)
	if r.Differences == nil {
		r.Differences = []Difference{}
	}
	switch {
	case len(r.Differences) > 0 || r.Probe.Different > 0 || len(r.Unknown) > 0 || r.Probe.Failed > 0:
		r.Result = Different
	case r.Probe.Unequal > 0:
		r.Result = Noise
	default:
		r.Result = Equal
	}
}

// Broken says that somebody must look: something differs, or could not be compared.
func (r *Report) Broken() bool { return r.Result != Equal && r.Result != Noise }

// Summary is the report in one line.
func (r *Report) Summary() string {
	parts := []string{string(r.Result)}
	if n := len(r.Differences); n > 0 {
		parts = append(parts, fmt.Sprintf("%d differences in what verdicts depend on (%s)", n, r.Differences[0]))
	}
	parts = append(parts, fmt.Sprintf("%d of %d messages judged differently beyond the noise", r.Probe.Different, r.Probe.Messages))
	if n := len(r.Unknown); n > 0 {
		parts = append(parts, "not compared: "+strings.Join(r.Unknown, "; "))
	}
	if r.Probe.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d messages not judged (%s)", r.Probe.Failed, r.Probe.Errors[0]))
	}
	return strings.Join(parts, "; ")
}

// WriteText prints the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s%s\n", name, fmt.Sprintf(format, args...))
	}
	if r.Site != "" {
		row("Sites", "here %s, peer %s", r.Site, r.PeerSite)
	}
	if r.Here.Engine != "rspamd" {
		row("Engine", "%s", r.Here.Engine)
	} else {
		row("Engine", "rspamd %s, %d symbols, %d thresholds, %d maps, %d messages learned",
			r.Here.Version, len(r.Here.Symbols), len(r.Here.Actions), len(r.Here.Maps), r.Here.Learned)
	}
	if len(r.Redis) == 2 {
		row("Redis", "here %s at %d, peer %s at %d", r.Redis[0].Role, r.Redis[0].Offset, r.Redis[1].Role, r.Redis[1].Offset)
	}
	if len(r.clocks) > 0 {
		row("Clocks", "%+.3fs at the peer", r.ClockOffsetSeconds)
	}
	if r.Settings > 0 {
		row("Settings", "%d of the configuration compared", r.Settings)
	}
	for _, d := range r.Differences {
		row("DIFFERENT", "%s", d)
	}
	for _, u := range r.Unknown {
		row("NOT COMPARED", "%s", u)
	}
	for _, s := range r.Skipped {
		row("Not compared", "%s", s)
	}
	p := r.Probe
	row("Messages", "%d judged by both: %d equal, %d within the noise, %d different",
		p.Messages, p.Messages-p.Unequal, p.Unequal-p.Different, p.Different)
	for _, action := range slices.Sorted(maps.Keys(p.Actions)) {
		row("", "%-15s here %d, peer %d", action, p.Actions[action][0], p.Actions[action][1])
	}
	row("Noise", "here %d, peer %d messages differ from themselves, by up to %s", p.NoiseHere, p.NoisePeer, rounded(p.ScoreNoise))
	for _, s := range p.Symbols {
		row("DIFFERENT", "%s, in %d messages", Difference{Aspect: "symbol", Name: s.Name, Here: s.Here, Peer: s.Peer}, s.Messages)
	}
	for _, m := range p.Named {
		texts := make([]string, len(m.Differences))
		for i, d := range m.Differences {
			texts[i] = d.String()
		}
		row("DIFFERENT", "message %s: %s", m.Name, strings.Join(texts, "; "))
	}
	for _, e := range p.Errors {
		row("NOT JUDGED", "%s", e)
	}
	if r.WriteChecked {
		row("Side effects", "%d bytes written to Redis meanwhile", r.Written)
	} else {
		row("Side effects", "not looked at: spam.redis names no servers that answer")
	}
	row("Result", "%s, after %.1fs", r.Result, r.Seconds)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
