package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/spamsync/replica/merge"
	"understudy/spamsync/replica/stream"
)

// Limits of the actions.
const (
	// followLimit bounds a full copy.
	followLimit = 10 * time.Minute
	// cutoverLimit is how long a cutover may take with writes held back. Redis holds
	// them pauseMargin longer, which is over before a client gives up.
	cutoverLimit = 4 * time.Second
	pauseMargin  = time.Second
	// carryLimit is the same where everything is carried over, which an operator asked for.
	carryLimit = 2 * time.Minute
	// failoverLimit bounds a planned move.
	failoverLimit = 5 * time.Second
	// minBacklogBytes is what Redis keeps for a follower that was cut off, and
	// backlogTime what it must last for at the measured rate.
	minBacklogBytes = 64 << 20
	maxBacklogBytes = 1 << 30
	backlogTime     = time.Hour
)

// act does what the machine said.
func (k *Keeper) act(ctx context.Context, out Output, fork stream.Point) error {
	switch out.Do {
	case Follow, FollowAnyway:
		return k.follow(ctx)
	case Detach:
		return k.detach(ctx, true)
	case Promote:
		return k.detach(ctx, false)
	case Failover:
		return k.failover(ctx)
	case Merge:
		return k.merge(ctx, fork)
	case Carry:
		return k.carry(ctx)
	case NoAction:
	}
	return nil
}

// follow makes the local Redis a replica of the other through the gate, and waits
// until it is one. The data of the other may replace what is here.
func (k *Keeper) follow(ctx context.Context) error {
	home := look(ctx, k.peer)
	if !home.Master() {
		return fmt.Errorf("follow: the other Redis takes no writes: %s %s", home.Trouble, home.Why)
	}
	if err := k.prepare(ctx); err != nil {
		return err
	}
	if err := k.attach(ctx, home); err != nil {
		return err
	}
	return k.settled(ctx, home)
}

// prepare sets what the local Redis needs before attach. It takes a while.
func (k *Keeper) prepare(ctx context.Context) error {
	k.tune(ctx, k.local, "local")
	if k.password != "" {
		if err := k.local.ConfigSet(ctx, "masterauth", k.password).Err(); err != nil {
			return fmt.Errorf("set masterauth: %w", err)
		}
		if k.username != "" {
			if err := k.local.ConfigSet(ctx, "masteruser", k.username).Err(); err != nil {
				return fmt.Errorf("set masteruser: %w", err)
			}
		}
	}
	return nil
}

// attach sends the local Redis to the gate, which lets home's history pass. After an
// error the gate is closed: what is executed late then replaces nothing.
func (k *Keeper) attach(ctx context.Context, home Seen) error {
	host, port, err := net.SplitHostPort(k.gate.Addr())
	if err != nil {
		return err
	}
	k.gate.Close() // what passes belongs to another history
	k.gate.Forget()
	k.gate.Permit(home.Now.ID)
	k.gate.Open()
	if err := k.local.ReplicaOf(ctx, host, port).Err(); err != nil {
		k.gate.Permit("")
		k.gate.Close()
		return fmt.Errorf("replicaof: %w", err)
	}
	return nil
}

// settled waits until the local Redis follows, and then notes what.
func (k *Keeper) settled(ctx context.Context, home Seen) error {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	for {
		s := look(ctx, k.local)
		if s.Replica() && s.LinkUp && !s.Syncing && s.Now.ID == home.Now.ID {
			break
		}
		home = k.renamed(ctx, home)
		if s.Master() {
			return errors.New("follow: somebody else promoted this Redis")
		}
		if !pause(ctx, lookEvery/4) {
			return fmt.Errorf("follow: not in step with the other Redis: link up %v, %s: %w", s.LinkUp, k.gate.Refused().Text, ctx.Err())
		}
	}
	return k.mark(ctx, home)
}

// renamed looks at home again where the gate has refused a full copy: Redis starts
// a new history when its first replica comes. The process and its data must be
// the ones that were judged.
func (k *Keeper) renamed(ctx context.Context, home Seen) Seen {
	r := k.gate.Refused()
	if !r.Full || r.FullID == home.Now.ID {
		return home
	}
	now := look(ctx, k.peer)
	if !now.Master() || now.Now.ID != r.FullID || now.Dataset != home.Dataset || now.Run != home.Run || home.Run == "" {
		return home
	}
	k.gate.Permit(now.Now.ID)
	return now
}

// mark notes the dataset that is followed, and marks it at home where it has no mark.
func (k *Keeper) mark(ctx context.Context, home Seen) error {
	mark := home.Dataset
	if mark == "" {
		k.mu.Lock()
		mark = k.rec.Mark
		k.mu.Unlock()
		if mark == "" {
			mark = newMark()
		}
		if err := k.peer.SetNX(ctx, datasetKey, mark, 0).Err(); err != nil {
			return fmt.Errorf("mark home: %w", err)
		}
		var err error
		if mark, err = k.peer.Get(ctx, datasetKey).Result(); err != nil {
			return fmt.Errorf("mark home: %w", err)
		}
	}
	k.unrecorded.Store(false)
	return k.note(func(r *record) { r.Mark, r.Fork, r.Since = mark, stream.Point{}, time.Time{} })
}

// note changes the record, durably.
func (k *Keeper) note(change func(*record)) error {
	k.mu.Lock()
	r := k.rec
	k.mu.Unlock()
	change(&r)
	if err := r.write(k.deps.Dir); err != nil {
		return err
	}
	k.mu.Lock()
	k.rec = r
	k.mu.Unlock()
	return nil
}

// detach promotes the local Redis. It has executed everything that arrived: the
// bytes of a stream are executed as they are read. recorded notes the fork.
func (k *Keeper) detach(ctx context.Context, recorded bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	k.gate.Close()
	// Before it happens: where an answer is lost, adopt records the fork later.
	k.unrecorded.Store(recorded)
	if err := k.local.ReplicaOf(ctx, "NO", "ONE").Err(); err != nil {
		return fmt.Errorf("replicaof no one: %w", err)
	}
	k.tune(ctx, k.local, "local")
	s := look(ctx, k.local)
	if !s.Master() {
		return fmt.Errorf("promote: this Redis takes no writes: %s %s", s.Trouble, s.Why)
	}
	k.log.Info("this Redis stands alone", "fork", s.Before.String(), "recorded", recorded)
	if !recorded {
		return nil
	}
	return k.noteFork(s.Before)
}

// noteFork records where this site detached.
func (k *Keeper) noteFork(at stream.Point) error {
	err := k.note(func(r *record) { r.Fork, r.Since = at, time.Now() })
	if err == nil {
		k.unrecorded.Store(false)
	}
	return err
}

// merge carries what was written here after fork to home, and follows home.
func (k *Keeper) merge(ctx context.Context, fork stream.Point) error {
	k.merging.Lock()
	defer k.merging.Unlock()
	home := look(ctx, k.peer)
	if !home.Master() {
		return fmt.Errorf("merge: home takes no writes: %s %s", home.Trouble, home.Why)
	}
	file, err := os.OpenFile(filepath.Join(k.deps.Dir, "unmerged.resp"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep what no rule covers: %w", err)
	}
	defer func() { _ = file.Close() }()
	o := k.mergeOptions(fork)
	o.Keep = file
	// Most of it while writes still arrive, so that the rest is short.
	if _, err := k.mergeTo(ctx, o); err != nil {
		return err
	}
	return k.cutover(ctx, home, cutoverLimit, func(ctx context.Context) error {
		r, err := k.mergeTo(ctx, o)
		if err != nil {
			return err
		}
		if !r.To.IsZero() && r.To.Offset < look(ctx, k.local).Now.Offset-maxIdleBytes {
			return errors.New("merge: writes went on although they are paused")
		}
		return nil
	})
}

// maxIdleBytes is what may appear in the stream while writes are paused: a PING.
const maxIdleBytes = 256

// mergeOptions are the options of a merge of everything after fork.
func (k *Keeper) mergeOptions(fork stream.Point) merge.Options {
	// The journal first: after a crash the backlog lacks what was acknowledged before.
	sources := []stream.Source{stream.Backlog{Options: k.stream()}}
	if k.journal != nil {
		sources = append([]stream.Source{k.journal}, sources...)
	}
	return merge.Options{
		Home: k.peer, Follower: k.local, Fork: fork, Origin: k.deps.Site, Target: k.deps.Peer,
		Source: merge.FirstOf(sources...), DB: k.deps.Redis.DB, Logger: k.log,
	}
}

// mergeTo merges up to where the local Redis is now.
func (k *Keeper) mergeTo(ctx context.Context, o merge.Options) (merge.Report, error) {
	here := look(ctx, k.local)
	if !here.Up() {
		return merge.Report{}, fmt.Errorf("merge: this Redis: %s %s", here.Trouble, here.Why)
	}
	o.To = here.Now
	r, err := merge.Merge(ctx, o)
	if err != nil {
		return r, fmt.Errorf("merge: %w", err)
	}
	k.mu.Lock()
	if !o.DryRun {
		k.report = &r
	}
	k.mu.Unlock()
	return r, nil
}

// cutover leads the endpoint to home, holds back what others write here, has last
// carry over the rest, and follows. Without a hole: every write is either before
// the end of last, or gets an error.
func (k *Keeper) cutover(ctx context.Context, home Seen, limit time.Duration, last func(context.Context) error) error {
	if err := k.prepare(ctx); err != nil {
		return err
	}
	k.mu.Lock()
	k.cutOver = true
	k.lead(There)
	k.mu.Unlock()
	// From before the question: everything up to REPLICAOF ends a second before the pause.
	began := time.Now()
	held := limit + pauseMargin
	lctx, cancel := context.WithDeadline(ctx, began.Add(limit))
	defer cancel()
	released := false
	release := func() {
		if released {
			return
		}
		released = true
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := k.local.Do(rctx, "CLIENT", "UNPAUSE").Err(); err != nil {
			k.log.Warn("writes stay held back until redis lets them go", "err", err)
		}
	}
	defer release() // also where the answer to the next command is lost
	if err := k.local.Do(lctx, "CLIENT", "PAUSE", held.Milliseconds(), "WRITE").Err(); err != nil {
		return fmt.Errorf("hold writes back: %w", err)
	}
	if err := last(lctx); err != nil {
		return err
	}
	now := look(lctx, k.peer)
	if !now.Master() || now.Now.ID != home.Now.ID {
		return errors.New("merge: home changed meanwhile")
	}
	if time.Since(began) >= limit {
		return errors.New("merge: the rest took too long to hold writes back; it is tried again")
	}
	if err := k.attach(lctx, home); err != nil {
		return err
	}
	release()
	if err := k.settled(ctx, home); err != nil {
		return err
	}
	return k.note(func(r *record) { r.Merged = time.Now() })
}

// tune sets what replication needs. What is refused is only told: the server's
// configuration may have it already.
func (k *Keeper) tune(ctx context.Context, c *redis.Client, which string) {
	want := k.backlogBytes()
	for _, s := range []struct{ name, value string }{
		{"repl-backlog-ttl", "0"}, {"repl-backlog-size", strconv.FormatInt(want, 10)}, {"min-replicas-to-write", "0"},
	} {
		if s.name == "repl-backlog-size" {
			now, err := c.ConfigGet(ctx, s.name).Result()
			if has, _ := strconv.ParseInt(now[s.name], 10, 64); err == nil && has >= want {
				continue
			}
		}
		if err := c.ConfigSet(ctx, s.name, s.value).Err(); err != nil {
			k.log.Warn("redis does not take a setting; set it in its configuration", "redis", which, "setting", s.name, "value", s.value, "err", err)
		}
	}
}

// backlogBytes is the size of the backlog for the measured rate of writes.
func (k *Keeper) backlogBytes() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return min(max(int64(k.lag.rate()*backlogTime.Seconds()), minBacklogBytes), maxBacklogBytes)
}
