package merge

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// flush carries out a batch: one transaction that also moves the mark. It is
// refused when somebody else moved the mark meanwhile.
func (m *merger) flush(ctx context.Context, b *batch) error {
	if b.end.IsZero() {
		return nil
	}
	calls := b.calls()
	var answers []*redis.Cmd
	var err error
	if m.DryRun {
		answers, err = m.ask(ctx, b, calls)
	} else {
		answers, err = m.write(ctx, b, calls)
	}
	if err != nil {
		return err
	}
	for k, c := range b.counts {
		sum := m.report.Kinds[k.name()]
		sum.Commands += c.Commands
		sum.Kept += c.Kept
		m.report.Kinds[k.name()] = sum
	}
	for i, a := range answers {
		if a != nil {
			m.read(calls[i], a)
		}
	}
	m.report.To = b.end
	if !m.DryRun {
		m.place = b.end
	}
	m.report.Batches++
	if m.OnBatch != nil {
		m.OnBatch(m.report)
	}
	return nil
}

// write is the transaction.
func (m *merger) write(ctx context.Context, b *batch, calls []call) ([]*redis.Cmd, error) {
	answers := make([]*redis.Cmd, len(calls))
	base := m.Home.Options().DB
	if m.stale {
		if err := m.Home.Del(ctx, m.mark).Err(); err != nil {
			return nil, fmt.Errorf("remove the mark of an earlier fork: %w", err)
		}
		m.stale = false
	}
	err := m.Home.Watch(ctx, func(tx *redis.Tx) error {
		place, err := m.readMark(ctx, tx)
		if err != nil {
			return err
		}
		if place != m.place {
			return fmt.Errorf("%w: it is at %v", ErrBusy, place)
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			// The mark comes first, so that who reads the stream knows whose it is.
			p.HSet(ctx, m.mark, markFork, m.Fork.String(), markPlace, b.end.String())
			if b.db != base {
				p.Do(ctx, "SELECT", b.db)
			}
			for i, c := range calls {
				answers[i] = p.Do(ctx, c.words...)
			}
			if b.db != base {
				p.Do(ctx, "SELECT", base)
			}
			return nil
		})
		if failedBefore(err) {
			return err
		}
		return nil
	}, m.mark)
	if errors.Is(err, redis.TxFailedErr) {
		return nil, fmt.Errorf("%w: its mark moved", ErrBusy)
	}
	if err != nil {
		return nil, fmt.Errorf("write batch: %w", err)
	}
	return answers, nil
}

// failedBefore says that the transaction as a whole did not happen, or that this is
// not known. A command that fails inside one (a key that holds something else) is
// answered by itself, and all others are carried out.
func failedBefore(err error) bool {
	if err == nil || errors.Is(err, redis.Nil) {
		return false
	}
	return !redis.HasErrorPrefix(err, "WRONGTYPE") && !redis.HasErrorPrefix(err, "ERR hash value is not") &&
		!redis.HasErrorPrefix(err, "ERR value is not") && !redis.HasErrorPrefix(err, "ERR increment")
}

// ask reads what the learns would decide.
func (m *merger) ask(ctx context.Context, b *batch, calls []call) ([]*redis.Cmd, error) {
	answers := make([]*redis.Cmd, len(calls))
	if b.db != m.Home.Options().DB {
		m.note(fmt.Sprintf("a preview does not look at what home has in database %d", b.db))
		return answers, nil
	}
	pipe := m.Home.Pipeline()
	for i, c := range calls {
		if c.learn {
			answers[i] = pipe.Do(ctx, c.words...)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("preview batch: %w", err)
	}
	return answers, nil
}

// read counts one answer.
func (m *merger) read(c call, a *redis.Cmd) {
	if err := a.Err(); err != nil && !errors.Is(err, redis.Nil) {
		m.note(fmt.Sprintf("home holds something else in a key: %.100q: %v", fmt.Sprint(c.words[1]), err))
		return
	}
	if !c.script {
		return
	}
	values, err := a.Slice()
	if err != nil || len(values) < 2 {
		m.note(fmt.Sprintf("unexpected answer of home: %v", a.Val()))
		return
	}
	kept, _ := values[0].(int64)
	failed, _ := values[1].(int64)
	sum := m.report.Kinds[c.kind.name()]
	sum.Kept += kept
	m.report.Kinds[c.kind.name()] = sum
	if failed > 0 {
		m.note(fmt.Sprintf("home holds something else in some keys of kind %s", c.kind.name()))
	}
	if !c.learn || len(values) < 3 {
		return
	}
	switch values[2] {
	case "a":
		m.report.Learns.Applied++
	case "d":
		m.report.Learns.Double++
	case "h":
		m.report.Learns.HomeWon++
	case "f":
		m.report.Learns.FollowerWon++
	case "o":
	}
}
