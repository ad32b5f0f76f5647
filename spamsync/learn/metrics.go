package learn

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	done *prometheus.CounterVec
}

// register makes the metrics of q; reg may be nil.
func (q *Queue) register(reg prometheus.Registerer) error {
	q.metrics.done = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "understudy_spam_learn_total",
		Help: "Messages that left the learn queue, by class and outcome (learned, known, dropped).",
	}, []string{"class", "outcome"})
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "understudy_spam_learn_waiting",
		Help: "Messages that wait to be learned.",
	}, func() float64 { return float64(q.Status().Waiting) })
	if reg == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{q.metrics.done, waiting} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics of learning: %w", err)
		}
	}
	return nil
}
