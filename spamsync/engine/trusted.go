package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"understudy/smtp"
)

// Trusted takes the sealed verdict of the other understudy, who saw the real
// client; mail of others, and mail whose seal does not hold, goes to Next. It is an
// smtp.Filter.
//
// What the other site held in quarantine and then sent was released by an
// operator there: it is accepted here.
type Trusted struct {
	Next    smtp.Filter
	Key     []byte
	MaxAge  time.Duration
	Logger  *slog.Logger
	Metrics *Metrics
}

var _ smtp.Filter = (*Trusted)(nil)

// Check implements smtp.Filter.
func (t *Trusted) Check(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker) (smtp.Verdict, error) {
	if !env.Client.Peer || len(t.Key) == 0 {
		return t.Next.Check(ctx, env, body)
	}
	result := "missing"
	value, err := sealOf(body)
	if err != nil {
		return smtp.Verdict{}, err
	}
	if value != "" {
		s, err := Verify(t.Key, value, env.Sender, body, time.Now(), t.MaxAge)
		if err == nil {
			t.Metrics.sealed.WithLabelValues("trusted").Inc()
			return smtp.Verdict{Engine: "peer/" + s.Engine, Score: s.Score, Required: s.Required, Spam: s.Spam}, nil
		}
		if !errors.Is(err, ErrSeal) {
			return smtp.Verdict{}, err
		}
		result = "invalid"
		t.Logger.WarnContext(ctx, "sealed verdict of the other site is not trusted", "queue_id", env.ID, "err", err)
	}
	t.Metrics.sealed.WithLabelValues(result).Inc()
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return smtp.Verdict{}, fmt.Errorf("rewind message: %w", err)
	}
	return t.Next.Check(ctx, env, body)
}

// sealOf returns the topmost seal of a message; "" where there is none.
func sealOf(body io.ReadSeeker) (string, error) {
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("rewind message: %w", err)
	}
	fields, err := smtp.ReadHeader(body, maxHeaderBytes)
	if err != nil && !errors.Is(err, smtp.ErrHeaderTooLong) {
		return "", fmt.Errorf("read header of message: %w", err)
	}
	for _, f := range fields {
		if strings.EqualFold(f.Name, SealField) {
			return f.Value, nil
		}
	}
	return "", nil
}
