package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"understudy/spamsync/replica/stream"
)

const (
	// tick bounds how long the journal waits for bytes before it looks around.
	tick = 200 * time.Millisecond
	// ackEvery is how often a quiet journal tells the server that it is there.
	ackEvery = time.Second
	// idleLimit is how long PINGs alone wait for something worth a sync.
	idleLimit = time.Minute
	// trimEvery is how often age is looked at.
	trimEvery = time.Minute
	// retryFirst and retryLast bound the pause before the next attempt.
	retryFirst, retryLast = 100 * time.Millisecond, 3 * time.Second
)

// Run follows the server until ctx ends, and connects again where it must. It is
// called once.
func (j *Journal) Run(ctx context.Context, server stream.Options) error {
	if server.Gather == 0 {
		server.Gather = j.opts.Config.SyncEvery / 2
	}
	logging, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- j.log.Run(logging) }()
	pause := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := j.follow(ctx, server)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > retryLast {
			pause = retryFirst
		}
		j.setState(false, err)
		j.opts.Logger.Warn("redis journal interrupted", "err", err)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, retryLast)
	}
	j.setState(false, nil)
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("redis journal: %w", err)
	}
	return nil
}

// follow is one connection.
func (j *Journal) follow(ctx context.Context, server stream.Options) error {
	c, r, err := j.attach(ctx, server)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	j.setState(true, nil)
	w := &writer{j: j, conn: c, run: r, next: r.end, db: int32(c.DB()), inTx: c.InTx(), whole: true}
	w.reset(time.Now())
	for {
		now := time.Now()
		if err := w.service(ctx, now); err != nil {
			return err
		}
		cmd, ok, err := c.NextUntil(ctx, w.until(now))
		if err != nil {
			// What has arrived is kept, also when the daemon stops.
			flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), behindLimit)
			err = errors.Join(err, w.flush(flushing))
			cancel()
			return err
		}
		if !ok {
			continue
		}
		if err := w.take(ctx, cmd); err != nil {
			return err
		}
	}
}

// attach connects at the end of the journal if the server can go on from there, else
// where it is now, and records what is missing.
func (j *Journal) attach(ctx context.Context, server stream.Options) (*stream.Conn, *run, error) {
	j.mu.Lock()
	last := j.newest()
	j.mu.Unlock()
	if last != nil {
		c, r, err := j.goOn(ctx, server, last)
		if err == nil || !errors.Is(err, stream.ErrNotCovered) {
			return c, r, err
		}
	}
	c, at, err := fromNow(ctx, server)
	if err != nil {
		return nil, nil, err
	}
	r := &run{id: at.ID, how: fresh, start: at.Offset, end: at.Offset, seq: 1}
	if last != nil {
		r.seq = last.seq + 1
		g := Gap{After: last.last(), Resumed: at, At: time.Now().UTC(), Reason: "redis does not have the bytes between any more"}
		if err := j.addGap(ctx, g); err != nil {
			return nil, nil, errors.Join(err, c.Close())
		}
	}
	if err := j.begin(ctx, r); err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return c, r, nil
}

// goOn connects at the end of run last, or at the place the server came back from.
func (j *Journal) goOn(ctx context.Context, server stream.Options, last *run) (*stream.Conn, *run, error) {
	c, at, err := psync(ctx, server, last.last())
	if err == nil && at.ID == last.id {
		return c, last, nil
	}
	r := &run{seq: last.seq + 1, id: at.ID, how: goesOn, parent: last.id}
	if errors.Is(err, stream.ErrNotCovered) {
		info, infoErr := stream.FetchInfo(ctx, server)
		if infoErr != nil {
			return nil, nil, infoErr
		}
		if info.Before.ID != last.id || info.Before.Offset > last.end {
			return nil, nil, err
		}
		c, at, err = psync(ctx, server, info.Before)
		r.id, r.how = at.ID, rewound
	}
	if err != nil {
		return nil, nil, err
	}
	r.start, r.end = at.Offset, at.Offset
	if r.how == rewound {
		j.opts.Logger.Warn("redis came back at an older place", "lost_bytes", last.end-r.start, "at", at.String())
	}
	if err := j.begin(ctx, r); err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return c, r, nil
}

func psync(ctx context.Context, server stream.Options, p stream.Point) (*stream.Conn, stream.Point, error) {
	c, err := stream.Dial(ctx, server)
	if err != nil {
		return nil, stream.Point{}, err
	}
	at, err := c.Psync(ctx, p)
	if err != nil {
		return nil, stream.Point{}, err
	}
	return c, at, nil
}

// fromNow connects where the server is. A server that never had a replica keeps no
// backlog before the first one asks, hence the second attempt.
func fromNow(ctx context.Context, server stream.Options) (*stream.Conn, stream.Point, error) {
	var last error
	for range 3 {
		info, err := stream.FetchInfo(ctx, server)
		if err != nil {
			return nil, stream.Point{}, err
		}
		c, at, err := psync(ctx, server, info.Now)
		if err == nil || !errors.Is(err, stream.ErrNotCovered) {
			return c, at, err
		}
		last = err
	}
	return nil, stream.Point{}, fmt.Errorf("follow redis without a full copy: %w", last)
}

// begin records the start of a run, so that the journal knows it after a restart.
func (j *Journal) begin(ctx context.Context, r *run) error {
	j.mu.Lock()
	j.runs = append(j.runs, r)
	j.mu.Unlock()
	h := header{
		run: r.seq, how: r.how, whole: true, db: stream.UnknownDB, at: time.Now().UnixMilli(),
		runStart: r.start, start: r.start, id: r.id, parent: r.parent,
	}
	return j.append(ctx, r, h, nil)
}

func (j *Journal) addGap(ctx context.Context, g Gap) error {
	text, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("record gap: %w", err)
	}
	if _, err := j.log.Append(ctx, kindGap, text); err != nil {
		return fmt.Errorf("record gap: %w", err)
	}
	j.met.gaps.Inc()
	j.opts.Logger.Warn("redis journal has a gap", "after", g.After.String(), "resumed", g.Resumed.String())
	j.mu.Lock()
	defer j.mu.Unlock()
	j.gaps = append(j.gaps, g)
	return nil
}
