package engine

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
)

// Metrics count what all engines of one registry say.
type Metrics struct {
	verdicts *prometheus.CounterVec   // by engine and action
	failures *prometheus.CounterVec   // by engine
	skips    *prometheus.CounterVec   // by engine
	seconds  *prometheus.HistogramVec // by engine
	breaker  *prometheus.GaugeVec     // by engine
	sealed   *prometheus.CounterVec   // by result
}

// NewMetrics registers the metrics; nil keeps them private.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	m := &Metrics{
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_filter_verdicts_total", Help: "Verdicts by engine and action: accept, mark, quarantine, defer, reject.",
		}, []string{"engine", "action"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_filter_failures_total", Help: "Messages an engine gave no verdict on, by engine.",
		}, []string{"engine"}),
		skips: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_filter_skipped_total", Help: "Messages an engine was not asked about, because it is left alone after failures.",
		}, []string{"engine"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "understudy_filter_seconds", Help: "Time an engine took for one message, failures included.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"engine"}),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_filter_breaker_open", Help: "1 while an engine is left alone after failures.",
		}, []string{"engine"}),
		sealed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_filter_sealed_total", Help: "Mail from the other site by its sealed verdict: trusted, missing, invalid.",
		}, []string{"result"}),
	}
	reg.MustRegister(m.verdicts, m.failures, m.skips, m.seconds, m.breaker, m.sealed)
	return m
}

func (m *Metrics) judged(engine string, v smtp.Verdict, took time.Duration) {
	m.verdicts.WithLabelValues(engine, actionName(v)).Inc()
	m.seconds.WithLabelValues(engine).Observe(took.Seconds())
}

func (m *Metrics) failed(engine string, took time.Duration) {
	m.failures.WithLabelValues(engine).Inc()
	m.seconds.WithLabelValues(engine).Observe(took.Seconds())
}

func (m *Metrics) skipped(engine string) { m.skips.WithLabelValues(engine).Inc() }

func (m *Metrics) open(engine string, open bool) {
	n := 0.0
	if open {
		n = 1
	}
	m.breaker.WithLabelValues(engine).Set(n)
}

// actionName tells a marked message from a clean one.
func actionName(v smtp.Verdict) string {
	switch v.Action {
	case smtp.Accept:
		if v.Spam {
			return "mark"
		}
	case smtp.Quarantine:
		return "quarantine"
	case smtp.Defer:
		return "defer"
	case smtp.Reject:
		return "reject"
	}
	return "accept"
}
