package dnsfailover

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one Controller.
type metrics struct {
	requests *prometheus.CounterVec
	notes    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, c *Controller) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_failover_register_requests_total",
			Help: "Requests to the register by kind and result.",
		}, []string{"kind", "result"}),
		notes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_failover_events_total",
			Help: "Lines of the history by kind.",
		}, []string{"kind"}),
	}
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for _, col := range []prometheus.Collector{
		m.requests, m.notes,
		gauge("understudy_failover_active", "1 while this site may act as active.", func() float64 { return flag(c.feed.Load().Role == Active) }),
		gauge("understudy_failover_fenced", "1 while this site does not know that it may act.", func() float64 { return flag(c.feed.Load().Role == Fenced) }),
		gauge("understudy_failover_epoch", "Epoch of the view.", func() float64 { return float64(c.feed.Load().Epoch) }),
		gauge("understudy_failover_permit_left_seconds", "How long this site may act from its last event on; 0 without a permit.", func() float64 { return c.Snapshot().PermitLeft.Seconds() }),
		gauge("understudy_failover_sick", "1 while this site's own probes fail.", func() float64 { return flag(c.Snapshot().Self.Failed) }),
		gauge("understudy_failover_foreign_record", "1 while a managed record holds what nobody here wrote.", func() float64 { return flag(c.Snapshot().Foreign != "") }),
	} {
		if err := reg.Register(col); err != nil {
			return nil, fmt.Errorf("failover metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) request(kind string, err error) {
	text := "ok"
	if err != nil {
		text = "other"
	}
	for name, is := range map[string]error{
		"conflict": ErrConflict, "foreign": ErrForeign, "missing": ErrMissing, "unreadable": ErrBadRegister,
		"bad_time": ErrBadTime, "bad_key": ErrBadKey, "unreachable": ErrUnreachable, "no_answer": ErrUnknownOutcome, "refused": ErrRefused,
	} {
		if errors.Is(err, is) {
			text = name
		}
	}
	m.requests.WithLabelValues(kind, text).Inc()
}

func (m *metrics) note(kind string) { m.notes.WithLabelValues(kind).Inc() }
