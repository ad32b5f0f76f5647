package queue

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
)

// metrics are the spool's counters, and its gauges, which are read from the index
// when they are asked for.
type metrics struct {
	registerer prometheus.Registerer
	spool      *Spool
	messages   *prometheus.Desc
	bytes      *prometheus.Desc
	free       *prometheus.Desc
	memory     *prometheus.Desc

	acceptedTotal prometheus.Counter
	acceptedBytes prometheus.Counter
	removedTotal  prometheus.Counter
	results       *prometheus.CounterVec
	delay         prometheus.Histogram
	erased        prometheus.Counter
	sent          prometheus.Counter
	deferred      prometheus.Counter
	refused       prometheus.Counter
}

var _ prometheus.Collector = (*metrics)(nil)

func newMetrics(s *Spool, registerer prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "understudy_queue_" + name, Help: help})
	}
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("understudy_queue_"+name, help, labels, nil)
	}
	m := &metrics{
		registerer: registerer, spool: s,
		messages:      gauge("messages", "Messages in the queue.", "state"),
		bytes:         gauge("bytes", "Bytes of the messages in the queue.", "state"),
		free:          gauge("free_bytes", "Bytes free in the spool's file system, as last measured."),
		memory:        gauge("draft_memory_bytes", "Memory of the messages that are being received."),
		acceptedTotal: counter("accepted_total", "Messages stored."),
		acceptedBytes: counter("accepted_bytes_total", "Bytes of the messages stored."),
		removedTotal:  counter("removed_total", "Messages that were delivered to all their recipients and have left the queue."),
		erased:        counter("segments_erased_total", "Segments of the log that were removed."),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_queue_results_total", Help: "Results of delivery attempts, one per recipient.",
		}, []string{"status"}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "understudy_queue_delay_seconds", Help: "Time from receipt to delivery.",
			Buckets: []float64{0.1, 1, 5, 30, 120, 600, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600},
		}),
	}
	m.sent = m.results.WithLabelValues(statusWord(smtp.Delivered))
	m.deferred = m.results.WithLabelValues(statusWord(smtp.Deferred))
	m.refused = m.results.WithLabelValues(statusWord(smtp.Refused))
	if registerer != nil {
		registerer.MustRegister(m)
	}
	return m
}

func (m *metrics) unregister() {
	if m.registerer != nil {
		m.registerer.Unregister(m)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.messages
	ch <- m.bytes
	ch <- m.free
	ch <- m.memory
	for _, c := range m.counters() {
		c.Describe(ch)
	}
}

func (m *metrics) counters() []prometheus.Collector {
	return []prometheus.Collector{m.acceptedTotal, m.acceptedBytes, m.removedTotal, m.erased, m.results, m.delay}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.spool
	s.mu.Lock()
	t := s.totals
	s.mu.Unlock()
	for i, state := range allStates() {
		ch <- prometheus.MustNewConstMetric(m.messages, prometheus.GaugeValue, float64(t.messages[i]), string(state))
		ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(t.bytes[i]), string(state))
	}
	ch <- prometheus.MustNewConstMetric(m.free, prometheus.GaugeValue, float64(s.space.last.Load()))
	ch <- prometheus.MustNewConstMetric(m.memory, prometheus.GaugeValue, float64(s.memory.used.Load()))
	for _, c := range m.counters() {
		c.Collect(ch)
	}
}

func (m *metrics) accepted(size int64) {
	m.acceptedTotal.Inc()
	m.acceptedBytes.Add(float64(size))
}

func (m *metrics) removed() { m.removedTotal.Inc() }

func (m *metrics) attempted(o smtp.Outcome, delay time.Duration) {
	switch o {
	case smtp.Delivered:
		m.sent.Inc()
		m.delay.Observe(delay.Seconds())
	case smtp.Refused:
		m.refused.Inc()
	case smtp.Deferred:
		m.deferred.Inc()
	}
}
