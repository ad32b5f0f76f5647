package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"understudy/spamsync/replica/journal"
	"understudy/spamsync/replica/merge"
	"understudy/spamsync/replica/stream"
)

// ServerStatus is one Redis at a glance.
type ServerStatus struct {
	Address string `json:"address"`
	Up      bool   `json:"up"`
	// Trouble says why it cannot be used, Why has its own words.
	Trouble  string     `json:"trouble,omitempty"`
	Why      string     `json:"why,omitempty"`
	Role     string     `json:"role,omitempty"`
	Follows  string     `json:"follows,omitempty"`
	LinkUp   bool       `json:"link_up,omitempty"`
	ID       string     `json:"id,omitempty"`
	Offset   int64      `json:"offset"`
	Keys     int64      `json:"keys"`
	Replicas []Attached `json:"replicas,omitempty"`
}

// Status is the replication of the spam state at a glance.
type Status struct {
	State State     `json:"state"`
	Since time.Time `json:"since"`
	// Home is the site that takes the writes where all is well.
	Home string `json:"home"`
	// Writes is where the endpoint leads now; empty is nowhere.
	Endpoint    string `json:"endpoint"`
	Writes      string `json:"writes_to"`
	Connections int    `json:"connections"`
	Refused     uint64 `json:"refused"`
	// LagBytes and LagSeconds are how far this copy is behind home.
	LagBytes   int64   `json:"lag_bytes"`
	LagSeconds float64 `json:"lag_seconds"`
	// WriteBytesPerSecond is what home writes.
	WriteBytesPerSecond float64 `json:"write_bytes_per_second"`
	// Busy is what is being done; Failure how that ended last, where it failed.
	Busy    Action `json:"busy,omitempty"`
	Failure string `json:"failure,omitempty"`
	// Relation is how this Redis is related to home; Fork where both parted.
	Relation   string         `json:"relation,omitempty"`
	Fork       stream.Point   `json:"fork,omitzero"`
	Conditions []Condition    `json:"conditions"`
	Local      ServerStatus   `json:"local"`
	Peer       ServerStatus   `json:"peer"`
	Journal    journal.Status `json:"journal"`
	// Merge is the last merge since the daemon started.
	Merge *merge.Report `json:"merge,omitempty"`
}

// Status returns the state of this moment.
func (k *Keeper) Status() Status {
	var j journal.Status
	if k.journal != nil {
		j = k.journal.Status()
	}
	now, refused := k.endpoint.Carried()
	k.mu.Lock()
	defer k.mu.Unlock()
	st := Status{
		State: k.out.State, Since: k.since, Home: k.deps.Peer, Writes: k.endpoint.Target(), Connections: now, Refused: refused,
		Endpoint: k.deps.Redis.WriteListen,
		LagBytes: k.lag.bytes, LagSeconds: k.lag.seconds, WriteBytesPerSecond: k.lag.rate(),
		Busy: k.busy, Failure: k.failure, Conditions: append([]Condition{}, k.out.Conditions...),
		Local: serverStatus(k.deps.Redis.Address, k.seen[0]), Peer: serverStatus(k.deps.Redis.Peer, k.seen[1]),
		Journal: j, Merge: k.report,
	}
	if k.homeHere {
		st.Home = k.deps.Site
	} else {
		st.Relation, st.Fork = k.out.Relation.String(), k.out.Relation.Fork
	}
	return st
}

func serverStatus(addr string, s Seen) ServerStatus {
	return ServerStatus{
		Address: addr, Up: s.Up(), Trouble: string(s.Trouble), Why: s.Why, Role: s.Role, Follows: s.Info.Master, LinkUp: s.LinkUp,
		ID: s.Now.ID, Offset: s.Now.Offset, Keys: s.Keys, Replicas: s.Replicas,
	}
}

// Errors of Keeper.Merge. They come wrapped.
var (
	// ErrNothing: there is nothing to merge.
	ErrNothing = errors.New("nothing to merge")
	// ErrAsk: it needs the operator's yes; the text says what it does.
	ErrAsk = errors.New("this needs a yes")
	// ErrNotNow: it cannot be done now; the text says why.
	ErrNotNow = errors.New("cannot be merged now")
)

// MergeAnswer is what a merge did, or would do.
type MergeAnswer struct {
	// Text says it in a sentence.
	Text string `json:"text"`
	// Report is nil where everything was carried over, or nothing was.
	Report *merge.Report `json:"report,omitempty"`
}

// Merge previews what a merge would do, or has what waits done: dryRun changes
// nothing; yes approves what a condition asks for. It waits until it is done.
func (k *Keeper) Merge(ctx context.Context, dryRun, yes bool) (MergeAnswer, error) {
	k.mu.Lock()
	out, home, busy := k.out, k.homeHere, k.busy
	peerUp := k.seen[1].Up()
	k.mu.Unlock()
	var asks []string
	for _, c := range out.Conditions {
		if c.Ask {
			asks = append(asks, c.Text)
		}
	}
	switch {
	case home:
		return MergeAnswer{}, fmt.Errorf("%w: this site is home; the other site's understudy merges", ErrNothing)
	case !peerUp:
		return MergeAnswer{}, fmt.Errorf("%w: the other site's Redis does not answer", ErrNotNow)
	case dryRun && len(asks) > 0:
		return MergeAnswer{Text: "would ask: " + strings.Join(asks, "; ")}, nil
	case dryRun && out.Relation.Kinship == Diverged:
		return k.preview(ctx, out.Relation.Fork)
	case len(asks) > 0 && !yes:
		return MergeAnswer{}, fmt.Errorf("%w: %s", ErrAsk, strings.Join(asks, "; "))
	case len(asks) == 0 && out.Relation.Kinship != Diverged && busy == NoAction:
		return MergeAnswer{}, fmt.Errorf("%w: %s", ErrNothing, out.Relation)
	case dryRun:
		return MergeAnswer{Text: "at work: " + string(busy)}, nil
	}
	done := make(chan error, 1)
	k.mu.Lock()
	k.waiting = append(k.waiting, done)
	k.approved = len(asks) > 0
	k.failedAt = time.Time{} // now, not later
	k.mu.Unlock()
	k.wake(event{})
	select {
	case <-ctx.Done():
		return MergeAnswer{}, ctx.Err()
	case err := <-done:
		if err != nil {
			return MergeAnswer{}, err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return MergeAnswer{Text: "done; this site's Redis follows home", Report: k.report}, nil
}

// preview merges without writing.
func (k *Keeper) preview(ctx context.Context, fork stream.Point) (MergeAnswer, error) {
	if !k.merging.TryLock() {
		return MergeAnswer{Text: "a merge is at work"}, nil
	}
	defer k.merging.Unlock()
	o := k.mergeOptions(fork)
	o.DryRun = true
	r, err := k.mergeTo(ctx, o)
	if err != nil {
		return MergeAnswer{}, err
	}
	return MergeAnswer{Text: "would be merged", Report: &r}, nil
}
