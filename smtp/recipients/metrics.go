package recipients

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	lookups *prometheus.CounterVec // by answer
	entries *prometheus.GaugeVec   // by source
	errors  *prometheus.CounterVec // by source
	fetch   *prometheus.HistogramVec
	callout *prometheus.CounterVec // by result
	audit   *prometheus.CounterVec // by result
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_recipients_lookups_total", Help: "Recipient look-ups by answer: exists, unknown, unsure.",
		}, []string{"answer"}),
		entries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_recipients_entries", Help: "Addresses and patterns known from a source.",
		}, []string{"source"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_recipients_fetch_errors_total", Help: "Failed queries of a source.",
		}, []string{"source"}),
		fetch: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "understudy_recipients_fetch_seconds", Help: "Duration of whole queries of a source.",
			Buckets: []float64{.01, .1, .5, 1, 5, 15, 60},
		}, []string{"source"}),
		callout: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_recipients_callouts_total", Help: "Questions to the primary's SMTP server by result: yes, no, unsure.",
		}, []string{"result"}),
		audit: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_recipients_audit_total", Help: "Audited addresses by comparison with the primary: agree, too_strict, too_lax, unanswered.",
		}, []string{"result"}),
	}
	if reg != nil {
		reg.MustRegister(m.lookups, m.entries, m.errors, m.fetch, m.callout, m.audit)
	}
	return m
}

// ageCollector reports the age of every source when it is asked for.
func ageCollector(sources []*source) []prometheus.Collector {
	var list []prometheus.Collector
	for _, s := range sources {
		list = append(list, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "understudy_recipients_age_seconds", Help: "Age of what a source said last; -1 where it never answered, or does not know.",
			ConstLabels: prometheus.Labels{"source": s.cfg.Name},
		}, func() float64 { return s.knowledge().age(time.Now()) }))
	}
	return list
}
