package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"understudy/smtp"
)

// ErrOpen is returned for a message that comes while the engine is left alone.
var ErrOpen = errors.New("engine is left alone after failures")

// Guard says how an engine's failures are met.
type Guard struct {
	// Name is the engine's in logs, metrics and alarms.
	Name   string
	Engine smtp.Filter
	// Timeout bounds one call of the engine.
	Timeout time.Duration
	// OnFailure is Tempfail, Accept or UseBuiltin.
	OnFailure string
	// Fallback is asked instead with UseBuiltin.
	Fallback smtp.Filter
	Breaker  BreakerConfig
	Alarms   smtp.Alarms
	Logger   *slog.Logger
	Metrics  *Metrics
}

// Guarded is an engine with a limit, a breaker and what to do when it fails. It is
// an smtp.Filter and may be used concurrently.
type Guarded struct {
	g       Guard
	breaker breaker
}

var _ smtp.Filter = (*Guarded)(nil)

// NewGuarded checks g.
func NewGuarded(g Guard) (*Guarded, error) {
	switch {
	case g.Engine == nil || g.Name == "" || g.Timeout <= 0 || g.Alarms == nil || g.Logger == nil || g.Metrics == nil:
		return nil, errors.New("guard needs name, engine, timeout, alarms, logger and metrics")
	case g.OnFailure != Tempfail && g.OnFailure != Accept && g.OnFailure != UseBuiltin:
		return nil, fmt.Errorf("unknown policy %q", g.OnFailure)
	case g.OnFailure == UseBuiltin && g.Fallback == nil:
		return nil, errors.New("no builtin engine to fall back on")
	}
	g.Metrics.open(g.Name, false)
	return &Guarded{g: g, breaker: breaker{threshold: g.Breaker.Failures, coolDown: g.Breaker.CoolDown}}, nil
}

// alarmKey names the condition "the last check failed".
func (g *Guarded) alarmKey() string { return "filter:" + g.g.Name }

// Check implements smtp.Filter.
func (g *Guarded) Check(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker) (smtp.Verdict, error) {
	if !g.breaker.allow(time.Now()) {
		g.g.Metrics.skipped(g.g.Name)
		return g.without(ctx, env, body, ErrOpen)
	}
	watched := &watched{ReadSeeker: body}
	began := time.Now()
	v, err := g.call(ctx, env, watched)
	took := time.Since(began)
	switch {
	case err == nil:
		g.breaker.end(time.Now(), succeeded)
		g.g.Metrics.judged(g.g.Name, v, took)
		g.g.Metrics.open(g.g.Name, false)
		g.g.Alarms.Clear(g.alarmKey())
		return v, nil
	case ctx.Err() != nil || watched.err != nil:
		// Nobody waits any more, or the message cannot be read: not its fault.
		g.breaker.end(time.Now(), withdrawn)
		return smtp.Verdict{}, err
	}
	open := g.breaker.end(time.Now(), failed)
	g.g.Metrics.failed(g.g.Name, took)
	g.g.Metrics.open(g.g.Name, open)
	g.g.Logger.WarnContext(ctx, "spam filter gave no verdict", "engine", g.g.Name, "queue_id", env.ID,
		"seconds", took.Seconds(), "on_failure", g.g.OnFailure, "left_alone", open, "err", err)
	g.g.Alarms.Raise(g.alarmKey(), fmt.Sprintf("%s gives no verdict (%s meanwhile): %v", g.g.Name, g.g.OnFailure, err))
	return g.without(ctx, env, body, err)
}

// call asks the engine within the time limit. A panic of it is an error: one
// message must not end the daemon.
func (g *Guarded) call(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker) (v smtp.Verdict, err error) {
	ctx, cancel := context.WithTimeout(ctx, g.g.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			v, err = smtp.Verdict{}, fmt.Errorf("engine panicked: %v", p)
		}
	}()
	return g.g.Engine.Check(ctx, env, body)
}

// without decides about a message that the engine did not judge.
func (g *Guarded) without(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker, cause error) (smtp.Verdict, error) {
	switch g.g.OnFailure {
	case Accept:
		return smtp.Verdict{Engine: g.g.Name, Symbols: []smtp.Symbol{{Name: "FILTER_UNAVAILABLE"}}}, nil
	case UseBuiltin:
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return smtp.Verdict{}, fmt.Errorf("rewind message: %w", err)
		}
		v, err := g.g.Fallback.Check(ctx, env, body)
		if err != nil {
			return smtp.Verdict{}, fmt.Errorf("%w; and the builtin engine: %w", cause, err)
		}
		return v, nil
	}
	return smtp.Verdict{}, fmt.Errorf("%s: %w", g.g.Name, cause)
}

// watched remembers that the message could not be read.
type watched struct {
	io.ReadSeeker
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadSeeker.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

func (w *watched) Seek(offset int64, whence int) (int64, error) {
	n, err := w.ReadSeeker.Seek(offset, whence)
	if err != nil {
		w.err = err
	}
	return n, err
}
