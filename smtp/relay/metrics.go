package relay

import (
	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
)

type metrics struct {
	recipients  *prometheus.CounterVec
	connections *prometheus.CounterVec
	state       *prometheus.GaugeVec
	limit       *prometheus.GaugeVec
	inFlight    *prometheus.GaugeVec
	seconds     *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	hop := []string{"hop"}
	m := &metrics{
		recipients: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_relay_recipients_total", Help: "Answers of next hops, by recipient.",
		}, []string{"hop", "outcome"}),
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_relay_connections_total", Help: "Attempts to connect to a next hop.",
		}, []string{"hop", "result"}),
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_relay_hop_state", Help: "1 for the state a next hop is in.",
		}, []string{"hop", "state"}),
		limit: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_relay_limit_messages", Help: "Messages that may be on their way to a next hop.",
		}, hop),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_relay_in_flight_messages", Help: "Messages on their way to a next hop.",
		}, hop),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "understudy_relay_attempt_seconds", Help: "Time from taking a message to the answer for it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}, hop),
	}
	if reg != nil {
		reg.MustRegister(m.recipients, m.connections, m.state, m.limit, m.inFlight, m.seconds)
	}
	return m
}

func outcomeName(o smtp.Outcome) string {
	switch o {
	case smtp.Delivered:
		return "delivered"
	case smtp.Refused:
		return "refused"
	case smtp.Deferred:
	}
	return "deferred"
}

// forget drops a hop's series.
func (m *metrics) forget(hop string) {
	by := prometheus.Labels{"hop": hop}
	m.state.DeletePartialMatch(by)
	m.limit.DeletePartialMatch(by)
	m.inFlight.DeletePartialMatch(by)
}
