package main

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"understudy/internal/admin"
	"understudy/spamsync/replica/merge"
	"understudy/spamsync/replica/stream"
)

// TestSpamMergeScripts runs testdata/spammerge: a merge that is previewed, refused,
// approved and reported, against the real admin server.
func TestSpamMergeScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/spammerge",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Setup: func(env *testscript.Env) error {
			socket, stop, err := serveSpam(&fakeMerger{fakeSpam: &fakeSpam{seen: map[string]string{}}})
			if err != nil {
				return err
			}
			env.Defer(stop)
			env.Setenv(socketVariable, socket)
			env.Setenv("TZ", "UTC")
			return nil
		},
	})
}

// fakeMerger is a filter whose state stands alone, and waits for a yes.
type fakeMerger struct {
	*fakeSpam
	merged bool // fakeSpam.mu
}

var _ admin.SpamMerger = (*fakeMerger)(nil)

func (f *fakeMerger) MergeSpam(_ context.Context, dryRun, yes bool) (admin.SpamMerge, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	report := &merge.Report{
		Origin: "b", Target: "a", DryRun: dryRun, Fork: stream.Point{ID: "d3d458134db1", Offset: 4711}, Commands: 58_068, Bytes: 3_800_000, Batches: 17,
		Kinds: map[string]merge.KindReport{
			"token":       {Commands: 50_000, Kept: 12},
			"learned ids": {Commands: 65},
		},
		Learns:  merge.LearnReport{Applied: 30, Double: 1, HomeWon: 2, FollowerWon: 3},
		Unknown: []merge.UnknownKey{{Key: "odd\x1b[31m", Command: "XADD", Commands: 4}},
		Notes:   []string{"a life that was over was not carried"},
	}
	switch {
	case dryRun:
		report.Batches = 0
		return admin.SpamMerge{Text: "would be merged into a", Report: report}, nil
	case f.merged:
		return admin.SpamMerge{}, admin.Conflict("there is nothing to merge: this site follows")
	case !yes:
		return admin.SpamMerge{}, admin.Conflict("home was emptied: it needs --yes")
	}
	f.merged = true
	return admin.SpamMerge{Text: "merged into a", Report: report}, nil
}

// SpamStatus has the state of replication besides.
func (f *fakeMerger) SpamStatus(ctx context.Context) (admin.SpamStatus, error) {
	st, err := f.fakeSpam.SpamStatus(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	st.Replica = &admin.SpamReplica{
		State: "detached", Since: at, Home: "a", Writes: "127.0.0.1:6379", Fork: "d3d458134db1:4711",
		Local:      admin.SpamRedis{Address: "127.0.0.1:6379", Up: true, Role: "master", Keys: 7, Offset: 9},
		Peer:       admin.SpamRedis{Address: "10.0.0.1:6379", Trouble: "wrong password"},
		Conditions: []admin.SpamCondition{{Key: "home-emptied", Text: "home was emptied; spam merge --yes", Ask: true}},
		Journal:    admin.SpamRedisJournal{Error: "redis\x1b[31m is gone", Bytes: 100, Gaps: 1},
	}
	if f.merged {
		st.Replica.State, st.Replica.Writes, st.Replica.Fork, st.Replica.Conditions = "following", "", "", nil
		st.Replica.LagBytes, st.Replica.LagSeconds = 12, 0.5
	}
	return st, err
}
