package learn

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// retryFirst is the first pause; each further one doubles it.
	retryFirst = time.Second
	// alarmAfter is how long learning may stand still before somebody is told.
	alarmAfter = 10 * time.Minute
	// homeFresh is how long an answer of Home counts.
	homeFresh = time.Second
	// alarmKey names the alarm.
	alarmKey = "spam:learn"
	// tidyEvery is how often disk and memory are looked after.
	tidyEvery = time.Minute
)

// Run writes the queue and teaches until ctx ends.
func (q *Queue) Run(ctx context.Context) error {
	// What is being recorded when ctx ends still gets onto the disk.
	lctx, stopLog := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLog()
	var log sync.WaitGroup
	var logErr error
	log.Go(func() { logErr = q.log.Run(lctx) })
	var work sync.WaitGroup
	work.Go(func() { q.tidyUntil(ctx) })
	q.work(ctx)
	work.Wait()
	stopLog()
	log.Wait()
	if errors.Is(logErr, context.Canceled) {
		logErr = nil
	}
	return logErr
}

// work teaches one message after the other.
func (q *Queue) work(ctx context.Context) {
	var homeAt time.Time
	for ctx.Err() == nil {
		it, wait := q.next()
		if it == nil {
			q.sleep(ctx, wait)
			continue
		}
		if q.deps.Home != nil && q.deps.Now().Sub(homeAt) > homeFresh {
			if err := q.deps.Home(ctx); err != nil {
				q.back(it, time.Time{})
				if ctx.Err() == nil {
					q.stand(err)
				}
				continue
			}
			homeAt = q.deps.Now()
		}
		if err := q.teach(ctx, it); err != nil && ctx.Err() == nil {
			q.deps.Logger.Warn("message not learned yet", "class", it.Class, "digest", it.Digest, "attempts", it.attempts, "err", err)
		}
	}
}

// next takes the first message that is due, or says how long there is none.
func (q *Queue) next() (*item, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.deps.Now()
	if wait := q.pause.until.Sub(now); wait > 0 {
		return nil, wait
	}
	for len(q.due) > 0 {
		it := q.due[0]
		if q.waiting[it.Digest] != it { // replaced, or done
			heap.Pop(&q.due)
			continue
		}
		if wait := it.next.Sub(now); wait > 0 {
			return nil, wait
		}
		heap.Pop(&q.due)
		it.busy = true
		return it, 0
	}
	return nil, time.Hour
}

// back puts an item back, due at next.
func (q *Queue) back(it *item, next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it.busy, it.next = false, next
	heap.Push(&q.due, it)
}

// sleep waits for d, for a new message, or for the end.
func (q *Queue) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-q.wake:
			q.mu.Lock()
			paused := q.pause.until.After(q.deps.Now())
			q.mu.Unlock()
			if !paused { // a new message does not end a pause
				return
			}
		}
	}
}

// teach hands one message over and records what came of it.
func (q *Queue) teach(ctx context.Context, it *item) error {
	raw, err := q.read(it)
	if err != nil { // damage on the disk: nothing is left to teach
		q.deps.Logger.Error("message to learn is lost", "digest", it.Digest, "err", err)
		return q.finish(ctx, it, kindDropped, "dropped")
	}
	tctx, cancel := context.WithTimeout(ctx, q.cfg.Timeout)
	outcome, err := q.deps.Teacher.Teach(tctx, it.class, it.Digest, raw)
	cancel()
	switch {
	case err == nil:
		q.resume()
		name := "known"
		if outcome == Learned {
			name = "learned"
		}
		return q.finish(ctx, it, kindTaught, name)
	case ctx.Err() != nil:
		q.back(it, time.Time{})
		return err
	}
	now := q.deps.Now()
	it.attempts++
	if errors.Is(err, ErrAway) || errors.Is(err, context.DeadlineExceeded) {
		q.stand(err)
	} else {
		if it.refused.IsZero() {
			it.refused = now
		}
		if now.Sub(it.refused) > q.cfg.Lifetime {
			q.deps.Logger.Warn("message given up, the engine does not learn it", "digest", it.Digest, "err", err)
			return q.finish(ctx, it, kindDropped, "dropped")
		}
	}
	// Others come first: one message must not hold up all.
	q.back(it, now.Add(backOff(it.attempts, time.Hour)))
	return err
}

// read returns the message of it.
func (q *Queue) read(it *item) ([]byte, error) {
	for {
		q.mu.Lock()
		pos := it.pos
		q.mu.Unlock()
		r, err := q.log.Read(pos)
		if err == nil {
			_, raw, err := splitMessage(r.Payload)
			return raw, err
		}
		q.mu.Lock()
		moved := it.pos != pos
		q.mu.Unlock()
		if !moved {
			return nil, fmt.Errorf("read message to learn: %w", err)
		}
	}
}

// finish records the end of an item. Where the disk refuses, it is tried again.
func (q *Queue) finish(ctx context.Context, it *item, kind byte, outcome string) error {
	if err := q.write(context.WithoutCancel(ctx), kind, it); err != nil {
		q.back(it, q.deps.Now().Add(backOff(it.attempts+1, q.cfg.RetryMax)))
		q.stand(err)
		return err
	}
	q.metrics.done.WithLabelValues(it.Class, outcome).Inc()
	return nil
}

// stand pauses all teaching.
func (q *Queue) stand(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.deps.Now()
	first := q.pause.since.IsZero()
	if first {
		q.pause.since = now
	}
	q.pause.failures++
	q.pause.until = now.Add(backOff(q.pause.failures, q.cfg.RetryMax))
	q.pause.reason = err.Error()
	if first {
		q.deps.Logger.Warn("learning pauses", "waiting", len(q.waiting), "err", err)
	}
	if now.Sub(q.pause.since) >= alarmAfter {
		q.deps.Alarms.Raise(alarmKey, fmt.Sprintf("%d messages wait to be learned since %s: %s",
			len(q.waiting), q.pause.since.Format(time.DateTime), q.pause.reason))
	}
}

// resume notes that the engine learns.
func (q *Queue) resume() {
	q.mu.Lock()
	paused := !q.pause.since.IsZero()
	q.pause = pause{}
	q.mu.Unlock()
	if paused {
		q.deps.Logger.Info("learning goes on")
		q.deps.Alarms.Clear(alarmKey)
	}
}

// backOff doubles from retryFirst up to limit.
func backOff(failures int, limit time.Duration) time.Duration {
	d := retryFirst << min(failures-1, 20)
	return min(d, limit)
}
