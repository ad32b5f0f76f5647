package smtp

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the front counts.
type metrics struct {
	connections *prometheus.CounterVec // by result
	open        prometheus.Gauge
	messages    *prometheus.CounterVec // by outcome
	recipients  *prometheus.CounterVec // by answer
	rejects     *prometheus.CounterVec // by stage
	bytes       prometheus.Counter
	session     prometheus.Histogram
	filter      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, l *limiter) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		connections: counter("understudy_smtp_connections_total", "Connections by result: accepted, refused.", "result"),
		open:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "understudy_smtp_connections_open", Help: "Open connections."}),
		messages: counter("understudy_smtp_messages_total",
			"Messages by outcome: accepted, quarantined, rejected, deferred, looped, full, broken, failed.", "outcome"),
		recipients: counter("understudy_smtp_recipients_total",
			"Recipients by answer: accepted, unknown, unsure, relay_denied, malformed, limited, failed.", "answer"),
		rejects: counter("understudy_smtp_rejects_total", "Refusals by stage of the session.", "stage"),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "understudy_smtp_received_bytes_total", Help: "Bytes of accepted messages."}),
		session: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "understudy_smtp_session_seconds", Help: "Duration of sessions.",
			Buckets: []float64{.01, .1, .5, 1, 5, 30, 60, 300, 1800},
		}),
		filter: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "understudy_smtp_filter_seconds", Help: "Time the filter took for one message.",
			Buckets: []float64{.001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
	tracked := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "understudy_smtp_tracked_networks", Help: "Client networks remembered for the limits.",
	}, func() float64 { return float64(l.size()) })
	reg.MustRegister(m.connections, m.open, m.messages, m.recipients, m.rejects, m.bytes, m.session, m.filter, tracked)
	return m
}
