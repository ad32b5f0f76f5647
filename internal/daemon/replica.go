package daemon

import (
	"context"
	"fmt"
	"net/http"

	"understudy/dnsfailover"
	"understudy/internal/admin"
	"understudy/internal/config"
	"understudy/spamsync/replica"
)

// buildReplica makes the keeper of the shared state's copy, where there is one.
func (s *spam) buildReplica(d *Daemon, cfg config.Config, dir string) error {
	if !s.cfg.Redis.Replicates() {
		return nil
	}
	k, err := replica.New(s.cfg.Redis.Replica, replica.Deps{
		Site: cfg.Site, Peer: cfg.Peer(), HomeHere: d.homeHere(d.view),
		Redis: s.cfg.Redis.RedisConfig, Dir: dir, Alarms: d.alarms, Logger: d.log, Registerer: d.registry,
	})
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	s.replica, s.closers = k, append(s.closers, k.Close)
	return nil
}

// homeHere says whether the view makes this site's Redis the home of the spam
// state: it is the active site's.
func (d *Daemon) homeHere(v dnsfailover.View) bool {
	return string(v.Active) == d.cfg.Site
}

// runReplica opens the endpoint and the gate, and keeps the copy.
func (d *Daemon) runReplica(ctx context.Context) error {
	k := d.spam.replica
	if err := k.Listen(ctx); err != nil {
		return err
	}
	d.listening("spam state writes", k.Endpoint())
	return k.Run(ctx)
}

var _ admin.SpamMerger = (*spam)(nil)

// MergeSpam implements admin.SpamMerger.
func (s *spam) MergeSpam(ctx context.Context, dryRun, yes bool) (admin.SpamMerge, error) {
	if s.replica == nil {
		return admin.SpamMerge{}, &admin.Error{
			Status: http.StatusConflict, Code: admin.CodeConflict,
			Text: "nothing is replicated here: spam.redis needs address, peer and write_listen",
		}
	}
	answer, err := s.replica.Merge(ctx, dryRun, yes)
	if err != nil {
		// Whatever it is, the operator asked and must read it.
		return admin.SpamMerge{}, &admin.Error{Status: http.StatusConflict, Code: admin.CodeConflict, Text: err.Error()}
	}
	return admin.SpamMerge(answer), nil
}

// replicaStatus is the replication in the words of the operators' API.
func (s *spam) replicaStatus() *admin.SpamReplica {
	if s.replica == nil {
		return nil
	}
	st := s.replica.Status()
	out := &admin.SpamReplica{
		State: string(st.State), Since: st.Since, Home: st.Home, Endpoint: st.Endpoint, Writes: st.Writes,
		Connections: st.Connections, Refused: st.Refused,
		LagBytes: st.LagBytes, LagSeconds: st.LagSeconds, WriteBytesPerSecond: st.WriteBytesPerSecond,
		Busy: string(st.Busy), Failure: st.Failure, Relation: st.Relation, Conditions: []admin.SpamCondition{},
		Local: redisStatus(st.Local), Peer: redisStatus(st.Peer), Merge: st.Merge,
		Journal: admin.SpamRedisJournal{
			Following: st.Journal.Following, Error: st.Journal.Err, Bytes: st.Journal.Bytes,
			Oldest: st.Journal.Oldest, Gaps: len(st.Journal.Gaps),
		},
	}
	if !st.Fork.IsZero() {
		out.Fork = st.Fork.String()
	}
	for _, c := range st.Conditions {
		out.Conditions = append(out.Conditions, admin.SpamCondition(c))
	}
	return out
}

func redisStatus(s replica.ServerStatus) admin.SpamRedis {
	out := admin.SpamRedis{
		Address: s.Address, Up: s.Up, Trouble: s.Trouble, Role: s.Role, Follows: s.Follows, LinkUp: s.LinkUp,
		ID: s.ID, Offset: s.Offset, Keys: s.Keys, Replicas: len(s.Replicas),
	}
	if s.Why != "" {
		out.Trouble += ": " + s.Why
	}
	return out
}
