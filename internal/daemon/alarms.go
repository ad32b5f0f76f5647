package daemon

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Alarm is one condition that somebody must look at.
type Alarm struct {
	Key   string    `json:"key"`
	Text  string    `json:"text"`
	Since time.Time `json:"since"`
}

// alarms keeps the raised conditions, logs their beginnings and ends, and shows
// them as a metric. It implements smtp.Alarms.
type alarms struct {
	log   *slog.Logger
	gauge *prometheus.GaugeVec

	mu     sync.Mutex
	raised map[string]Alarm
}

func newAlarms(log *slog.Logger, reg prometheus.Registerer) *alarms {
	a := &alarms{log: log, raised: map[string]Alarm{}, gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "understudy_alarm_raised",
		Help: "1 while the alarm of this key is raised.",
	}, []string{"key"})}
	if reg != nil {
		reg.MustRegister(a.gauge)
	}
	return a
}

// Raise implements smtp.Alarms. A new alarm is an error in the log; a new text
// under a key that is raised already only changes what the list shows.
func (a *alarms) Raise(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, known := a.raised[key]
	if known && old.Text == text {
		return
	}
	since := old.Since
	if !known {
		since = time.Now()
		a.log.Error("alarm raised", "alarm", key, "text", text)
		a.gauge.WithLabelValues(key).Set(1)
	}
	a.raised[key] = Alarm{Key: key, Text: text, Since: since}
}

// Clear implements smtp.Alarms.
func (a *alarms) Clear(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, known := a.raised[key]
	if !known {
		return
	}
	delete(a.raised, key)
	a.gauge.DeleteLabelValues(key)
	a.log.Info("alarm cleared", "alarm", key, "lasted", time.Since(old.Since).Round(time.Second))
}

// list returns what is raised, oldest first.
func (a *alarms) list() []Alarm {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Alarm, 0, len(a.raised))
	for _, al := range a.raised {
		out = append(out, al)
	}
	slices.SortFunc(out, func(x, y Alarm) int {
		if c := x.Since.Compare(y.Since); c != 0 {
			return c
		}
		return strings.Compare(x.Key, y.Key)
	})
	return out
}
