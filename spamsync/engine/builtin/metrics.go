package builtin

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the engine.
type metrics struct {
	messages    *prometheus.CounterVec
	seconds     prometheus.Histogram
	listErrors  *prometheus.CounterVec
	stateErrors prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_spam_builtin_messages_total", Help: "Messages judged by the builtin engine, by what was done.",
		}, []string{"action"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "understudy_spam_builtin_check_seconds", Help: "Time to judge one message.", Buckets: prometheus.ExponentialBuckets(0.001, 3, 9),
		}),
		listErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_spam_builtin_list_errors_total", Help: "Answers of block lists that say they do not serve us.",
		}, []string{"zone"}),
		stateErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "understudy_spam_builtin_state_errors_total", Help: "Questions to the spam state that failed.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.messages, m.seconds, m.listErrors, m.stateErrors)
	}
	return m
}
