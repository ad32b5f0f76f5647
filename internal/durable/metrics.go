package durable

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one log, labelled with its name.
type metrics struct {
	records, bytes, batches prometheus.Counter
	failures                *prometheus.CounterVec
	lazyDropped             prometheus.Counter
	quarantined             prometheus.Counter
	segments                prometheus.Gauge
	syncSeconds             prometheus.Histogram
}

func newMetrics(cfg LogConfig) (*metrics, error) {
	labels := prometheus.Labels{"log": cfg.Name}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "understudy_durable_" + name, Help: help, ConstLabels: labels})
	}
	m := &metrics{
		records: counter("records_total", "Records synced."),
		bytes:   counter("bytes_total", "Bytes synced, with headers and padding."),
		batches: counter("batches_total", "Batches synced: one sync each."),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_durable_failures_total", Help: "Batches that failed, by reason.", ConstLabels: labels,
		}, []string{"reason"}),
		lazyDropped: counter("lazy_dropped_total", "Lazy records dropped: the disk refused them too long."),
		quarantined: counter("quarantined_total", "Damaged spans found by replay."),
		segments: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "understudy_durable_segments_count", Help: "Segment files.", ConstLabels: labels,
		}),
		syncSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "understudy_durable_write_seconds", Help: "Time to write and sync a batch.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 16),
		}),
	}
	if cfg.Registerer == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.records, m.bytes, m.batches, m.failures, m.lazyDropped, m.quarantined, m.segments, m.syncSeconds,
	} {
		errs = append(errs, cfg.Registerer.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) failed(err error) {
	reason := "io"
	if errors.Is(err, ErrNoSpace) {
		reason = "no_space"
	}
	m.failures.WithLabelValues(reason).Inc()
}
