package peer

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the link's own.
type metrics struct {
	refused, opened *prometheus.CounterVec
	resumed         prometheus.Counter
	calls           *prometheus.CounterVec
	seconds         *prometheus.HistogramVec
}

func newMetrics(l *Link, reg prometheus.Registerer) metrics {
	m := metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_peer_refused_total", Help: "Connections to the peer port that were refused, by reason.",
		}, []string{"reason"}),
		opened: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_peer_connections_total", Help: "Connections between the sites that proved their keys, by service.",
		}, []string{"service"}),
		resumed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "understudy_peer_resumed_total", Help: "Connections to the other site that resumed a TLS session.",
		}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_peer_calls_total", Help: "Questions to the other site, by method and outcome.",
		}, []string{"method", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "understudy_peer_call_seconds", Help: "Time to an answer of the other site.",
			Buckets: []float64{0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1, 5},
		}, []string{"method"}),
	}
	if reg == nil {
		return m
	}
	gauge := func(name, help string, f func(Status) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return f(l.Status()) })
	}
	reg.MustRegister(m.refused, m.opened, m.resumed, m.calls, m.seconds,
		gauge("understudy_peer_up", "1 while the other site is heard.", func(s Status) float64 {
			if s.Up {
				return 1
			}
			return 0
		}),
		gauge("understudy_peer_rtt_seconds", "Shortest of the last round trips.", func(s Status) float64 { return s.RTT.Seconds() }),
		gauge("understudy_peer_clock_offset_seconds", "How far the other clock is ahead.", func(s Status) float64 { return s.ClockOffset.Seconds() }),
		gauge("understudy_peer_config_differing", "Configuration keys in which the sites differ.", func(s Status) float64 { return float64(len(s.Differing)) }),
	)
	return m
}

// called counts a question.
func (m *metrics) called(method string, took time.Duration, err error) {
	outcome := "answered"
	switch {
	case errors.Is(err, ErrDown):
		outcome = "down"
	case err != nil:
		outcome = "lost"
	}
	m.calls.WithLabelValues(method, outcome).Inc()
	if err == nil {
		m.seconds.WithLabelValues(method).Observe(took.Seconds())
	}
}
