package tunnel

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ServiceStatus is one service at this moment.
type ServiceStatus struct {
	Name   string   `json:"name"`
	Listen []string `json:"listen,omitempty"`
	Local  string   `json:"local"`
	// Way is where a client would go now.
	Way        string `json:"way"`
	WhenFenced string `json:"when_fenced"`
	// Connections by way: "local", "across" or "from_other_site".
	Connections map[string]int `json:"connections"`
	// Draining are among them, and end soon.
	Draining int `json:"draining,omitempty"`
}

// Status lists the services by name.
func (t *Tunnel) Status() []ServiceStatus {
	linkUp := t.deps.Link != nil && t.deps.Link.Up()
	v, now := t.deps.View(), time.Now()
	at := map[string]*ServiceStatus{}
	var out []ServiceStatus
	for _, name := range slices.Sorted(maps.Keys(t.services)) {
		s := t.services[name]
		out = append(out, ServiceStatus{
			Name: name, Local: s.Local, WhenFenced: s.fenced, Listen: s.Listen,
			Way: Decide(v, now, linkUp, s.fenced).String(), Connections: map[string]int{},
		})
	}
	for i := range out {
		at[out[i].Name] = &out[i]
	}
	for _, s := range t.list() {
		st := at[s.service.name]
		st.Connections[s.kind()]++
		if s.deadline.Load() != 0 {
			st.Draining++
		}
	}
	return out
}

// metrics are the tunnel's own.
type metrics struct {
	sessions, refused, ended *prometheus.CounterVec
	setup                    *prometheus.HistogramVec
	bytes                    [2]prometheus.Counter
	pool                     *sync.Pool
}

func (t *Tunnel) buffers() *sync.Pool { return t.metrics.pool }

func newMetrics(t *Tunnel, reg prometheus.Registerer) metrics {
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "understudy_tunnel_bytes_total", Help: "Bytes passed, by direction: up is from clients.",
	}, []string{"direction"})
	m := metrics{
		sessions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_tunnel_connections_total", Help: "Clients served, by service and way.",
		}, []string{"service", "way"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_tunnel_refused_total", Help: "Clients refused, by service and reason.",
		}, []string{"service", "reason"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_tunnel_ended_total", Help: "Connections ended by this daemon, by service and reason.",
		}, []string{"service", "reason"}),
		setup: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "understudy_tunnel_setup_seconds", Help: "Time from a client's connect to its server's, by way.",
			Buckets: []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5},
		}, []string{"way"}),
		bytes: [2]prometheus.Counter{bytes.WithLabelValues("up"), bytes.WithLabelValues("down")},
		pool:  &sync.Pool{New: func() any { return new([largeBytes]byte) }},
	}
	if reg != nil {
		reg.MustRegister(m.sessions, m.refused, m.ended, m.setup, bytes, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "understudy_tunnel_connections", Help: "Connections open now.",
		}, func() float64 {
			t.mu.Lock()
			defer t.mu.Unlock()
			return float64(len(t.sessions))
		}))
	}
	return m
}
