package journal

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	bytes, gaps prometheus.Counter
	following   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	m := metrics{
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "understudy_redis_journal_bytes_total", Help: "Bytes of the replication stream written to the journal.",
		}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "understudy_redis_journal_gaps_total", Help: "Times the journal missed a part of the replication stream.",
		}),
		following: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "understudy_redis_journal_following", Help: "Whether the journal follows its Redis now.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.bytes, m.gaps, m.following} {
		if err := reg.Register(c); err != nil {
			return m, err
		}
	}
	return m, nil
}
