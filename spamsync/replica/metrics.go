package replica

import "github.com/prometheus/client_golang/prometheus"

// metrics shows a Keeper.
type metrics struct {
	actions *prometheus.CounterVec

	k                       *Keeper
	state, bytes, seconds   *prometheus.Desc
	rate, carried, refused  *prometheus.Desc
	up, condition, detached *prometheus.Desc
}

func newMetrics(k *Keeper, reg prometheus.Registerer) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("understudy_spam_replica_"+name, help, labels, nil)
	}
	m := &metrics{
		k: k,
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_spam_replica_actions_total", Help: "What was done to the spam state's replication, and how it ended.",
		}, []string{"action", "result"}),
		state:     desc("state", "1 for the state of this site's Redis.", "state"),
		bytes:     desc("lag_bytes", "Bytes of the stream that this copy is behind home."),
		seconds:   desc("lag_seconds", "Seconds that this copy is behind home."),
		rate:      desc("written_bytes_per_second", "What home writes, over the last 25 s."),
		carried:   desc("endpoint_connections", "Connections that the write endpoint carries."),
		refused:   desc("endpoint_refused_total", "Connections that the write endpoint has refused."),
		up:        desc("up", "1 where the Redis answers and can be used.", "redis"),
		condition: desc("condition", "1 while the condition holds.", "condition"),
		detached:  desc("endpoint_leads", "1 where the write endpoint leads somewhere."),
	}
	if reg != nil {
		reg.MustRegister(m, m.actions)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.state, m.bytes, m.seconds, m.rate, m.carried, m.refused, m.up, m.condition, m.detached} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	st := m.k.Status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	one := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for _, s := range []State{Starting, Home, Following, Detached, Merging, Moving} {
		gauge(m.state, one(s == st.State), string(s))
	}
	gauge(m.bytes, float64(st.LagBytes))
	gauge(m.seconds, st.LagSeconds)
	gauge(m.rate, st.WriteBytesPerSecond)
	gauge(m.carried, float64(st.Connections))
	ch <- prometheus.MustNewConstMetric(m.refused, prometheus.CounterValue, float64(st.Refused))
	gauge(m.up, one(st.Local.Up), "local")
	gauge(m.up, one(st.Peer.Up), "peer")
	gauge(m.detached, one(st.Writes != ""))
	seen := map[string]bool{}
	for _, c := range st.Conditions {
		if !seen[c.Key] {
			seen[c.Key] = true
			gauge(m.condition, 1, c.Key)
		}
	}
}
