package parity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
)

// alarmKey names the alarm.
const alarmKey = "spam:parity"

// Schedule compares both sites again and again.
type Schedule struct {
	compare  func(context.Context) (Report, error)
	interval time.Duration
	alarms   smtp.Alarms
	log      *slog.Logger

	broken prometheus.Gauge
	unlike prometheus.Gauge
	when   prometheus.Gauge
	runs   *prometheus.CounterVec

	mu   sync.Mutex
	last *Outcome
}

// Outcome is how one comparison ended: Err, or the report.
type Outcome struct {
	At     time.Time
	Report Report
	Err    error
}

// NewSchedule returns a schedule for c; reg may be nil.
func NewSchedule(cfg Config, c *Comparer, alarms smtp.Alarms, log *slog.Logger, reg prometheus.Registerer) (*Schedule, error) {
	compare := func(ctx context.Context) (Report, error) {
		messages, err := cfg.messages()
		if err != nil {
			return Report{}, err
		}
		return c.Compare(ctx, messages)
	}
	return newSchedule(cfg.Interval, compare, alarms, log, reg)
}

// messages are those of scheduled comparisons.
func (c Config) messages() ([]Message, error) {
	if c.Corpus != "" {
		return Files(c.Corpus, c.Samples)
	}
	return Generated(uint64(time.Now().Unix()/86400), c.Samples), nil //nolint:gosec // days since 1970
}

func newSchedule(interval time.Duration, compare func(context.Context) (Report, error), alarms smtp.Alarms, log *slog.Logger, reg prometheus.Registerer) (*Schedule, error) {
	if interval <= 0 || alarms == nil || log == nil {
		return nil, errors.New("scheduled comparisons need interval, alarms and logger")
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "understudy_spam_parity_" + name, Help: help})
	}
	s := &Schedule{
		compare: compare, interval: interval, alarms: alarms, log: log,
		broken: gauge("broken", "1 while the last comparison found that both sites judge differently, or could not tell."),
		unlike: gauge("messages_different", "Messages of the last comparison that both sites judge differently beyond the noise."),
		when:   gauge("compared_timestamp_seconds", "When both sites were compared last."),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_spam_parity_comparisons_total", Help: "Comparisons of both sites by result.",
		}, []string{"result"}),
	}
	if reg == nil {
		return s, nil
	}
	for _, c := range []prometheus.Collector{s.broken, s.unlike, s.when, s.runs} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of parity: %w", err)
		}
	}
	return s, nil
}

// Last is the last outcome; nil before the first.
func (s *Schedule) Last() *Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Run compares every interval until ctx ends, the first time after a minute.
func (s *Schedule) Run(ctx context.Context) error {
	timer := time.NewTimer(min(time.Minute, s.interval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		s.once(ctx)
		timer.Reset(s.interval)
	}
}

// once compares, and tells.
func (s *Schedule) once(ctx context.Context) {
	r, err := s.compare(ctx)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	s.mu.Lock()
	s.last = &Outcome{At: now, Report: r, Err: err}
	s.mu.Unlock()
	s.when.Set(float64(now.Unix()))
	switch {
	case err != nil:
		s.runs.WithLabelValues("failed").Inc()
		s.broken.Set(1)
		s.alarms.Raise(alarmKey, "both sites could not be compared: "+err.Error())
		s.log.Warn("sites not compared", "err", err)
	case r.Broken():
		s.runs.WithLabelValues(string(r.Result)).Inc()
		s.broken.Set(1)
		s.alarms.Raise(alarmKey, "both sites judge differently: "+r.Summary())
		s.log.Warn("sites judge differently", "summary", r.Summary())
	default:
		s.runs.WithLabelValues(string(r.Result)).Inc()
		s.broken.Set(0)
		s.alarms.Clear(alarmKey)
		s.log.Info("sites judge alike", "result", string(r.Result), "messages", r.Probe.Messages)
	}
	s.unlike.Set(float64(r.Probe.Different))
}
