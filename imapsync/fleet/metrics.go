package fleet

import (
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/imapsync"
)

// Metrics counts passes and changes. A nil Metrics counts nothing. Accounts are
// counted by class, which is their domain: a label for each would be too many.
type Metrics struct {
	passes   *prometheus.CounterVec
	changes  *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	conflict *prometheus.CounterVec
	duration prometheus.Histogram
	known    prometheus.Gauge
	behind   prometheus.Gauge
	holds    *prometheus.GaugeVec
}

// NewMetrics registers the metrics of the mailbox synchronisation.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		passes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_mailsync_passes_total", Help: "Passes over an account by result: clean, unequal, busy, failed.",
		}, []string{"class", "result"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_mailsync_changes_total", Help: "Changes made at a side by kind: append, move, copy, flags, delete, folder.",
		}, []string{"class", "side", "kind"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_mailsync_appended_bytes_total", Help: "Bytes of messages stored at a side.",
		}, []string{"class", "side"}),
		conflict: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_mailsync_conflicts_total", Help: "Things both sides changed, by kind.",
		}, []string{"kind"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "understudy_mailsync_pass_seconds", Help: "Duration of passes that reached both sides.",
			Buckets: prometheus.ExponentialBuckets(0.005, 4, 9),
		}),
		known: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "understudy_mailsync_accounts", Help: "Accounts that are kept synchronised.",
		}),
		behind: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "understudy_mailsync_stale_accounts", Help: "Accounts without a clean pass for longer than max_age.",
		}),
		holds: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_mailsync_holds", Help: "Held deletions that wait for a person.",
		}, []string{"account"}),
	}
	if reg != nil {
		reg.MustRegister(m.passes, m.changes, m.bytes, m.conflict, m.duration, m.known, m.behind, m.holds)
	}
	return m
}

// class is the domain of an account.
func class(account string) string {
	if _, domain, ok := strings.Cut(account, "@"); ok {
		return strings.ToLower(domain)
	}
	return "local"
}

func (m *Metrics) note(r Result) {
	if m == nil || r.Report.DryRun {
		return
	}
	c, result := class(r.Account), "unequal"
	switch {
	case errors.Is(r.Err, imapsync.ErrBusy):
		result = "busy"
	case r.Err != nil:
		result = "failed"
	case r.Clean():
		result = "clean"
	}
	m.passes.WithLabelValues(c, result).Inc()
	if r.Err == nil {
		m.duration.Observe(r.Report.Duration.Seconds())
		// Only accounts with holds have a series: they are few.
		if n := len(r.Report.Holds); n > 0 {
			m.holds.WithLabelValues(r.Account).Set(float64(n))
		} else {
			m.holds.DeleteLabelValues(r.Account)
		}
	}
	for i, s := range r.Report.Sides {
		side := imapsync.Side(i).String()
		for kind, n := range map[string]int{
			"append": s.Appended, "move": s.Moved, "copy": s.Copied, "flags": s.FlagChanges, "delete": s.Deleted,
			"folder": s.FoldersCreated + s.FoldersRenamed + s.FoldersDeleted + s.Subscriptions,
		} {
			if n > 0 {
				m.changes.WithLabelValues(c, side, kind).Add(float64(n))
			}
		}
		m.bytes.WithLabelValues(c, side).Add(float64(s.AppendedBytes))
	}
	for _, conflict := range r.Report.Conflicts {
		m.conflict.WithLabelValues(conflict.Kind).Inc()
	}
}

func (m *Metrics) forget(account string) {
	if m != nil {
		m.holds.DeleteLabelValues(account)
	}
}

func (m *Metrics) accounts(n int) {
	if m != nil {
		m.known.Set(float64(n))
	}
}

func (m *Metrics) stale(n int) {
	if m != nil {
		m.behind.Set(float64(n))
	}
}
