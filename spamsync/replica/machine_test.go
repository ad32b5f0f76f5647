package replica

import (
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/spamsync/replica/stream"
)

const testGate, testPeer = "127.0.0.1:6391", "10.0.0.1:6379"

func at(id string, offset int64) stream.Point { return stream.Point{ID: id, Offset: offset} }

// seenMaster, seenReplica and seenAway are servers as they are looked at.
func seenMaster(now, before stream.Point, keys int64, mark string) Seen {
	return Seen{At: time.Unix(1, 0), Info: stream.Info{Role: "master", Now: now, Before: before}, Keys: keys, Dataset: mark}
}

func seenReplica(of string, up bool, now stream.Point, keys int64, mark string) Seen {
	return Seen{At: time.Unix(1, 0), Info: stream.Info{Role: "slave", Now: now, Master: of, LinkUp: up}, Keys: keys, Dataset: mark}
}

func seenAway(t Trouble) Seen { return Seen{At: time.Unix(1, 0), Trouble: t, Why: "WHY"} }

func TestRelate(t *testing.T) {
	t.Parallel()
	var none stream.Point
	for name, tc := range map[string]struct {
		local, home Seen
		mark        string
		fork        stream.Point
		want        Kinship
		at          stream.Point
	}{
		"home away":          {seenMaster(at("x", 9), none, 5, "m"), seenAway(Silent), "m", none, Unclear, none},
		"nothing here":       {seenMaster(at("l", 0), none, 0, ""), seenMaster(at("x", 9), none, 5, ""), "", none, Contained, none},
		"following":          {seenReplica(testGate, true, at("x", 12), 5, "m"), seenMaster(at("x", 9), none, 5, "m"), "m", none, Contained, none},
		"cut off":            {seenMaster(at("l", 20), at("x", 9), 6, "m"), seenMaster(at("x", 30), none, 7, "m"), "m", none, Diverged, at("x", 9)},
		"both promoted":      {seenMaster(at("l", 20), at("x", 9), 6, "m"), seenMaster(at("y", 30), at("x", 7), 7, "m"), "m", none, Diverged, at("x", 7)},
		"nothing written":    {seenMaster(at("l", 9), at("x", 9), 6, "m"), seenMaster(at("x", 30), none, 7, "m"), "m", none, Contained, none},
		"home restarted":     {seenReplica(testGate, false, at("x", 9), 6, "m"), seenMaster(at("y", 30), at("x", 9), 7, "m"), "m", none, Contained, none},
		"home went back":     {seenReplica(testGate, false, at("x", 9), 6, "m"), seenMaster(at("y", 30), at("x", 5), 7, "m"), "m", none, Diverged, at("x", 5)},
		"home emptied":       {seenReplica(testGate, false, at("x", 9), 6, "m"), seenMaster(at("y", 0), none, 0, ""), "m", none, Emptied, none},
		"home flushed":       {seenMaster(at("l", 12), at("x", 9), 6, "m"), seenMaster(at("x", 30), none, 3, ""), "m", none, Emptied, none},
		"only the mark gone": {seenReplica(testGate, true, at("x", 9), 6, ""), seenMaster(at("x", 9), none, 6, ""), "m", none, Contained, none},
		"another's data":     {seenReplica(testGate, true, at("x", 9), 6, "m"), seenMaster(at("z", 9), none, 6, "other"), "m", none, Foreign, none},
		"first meeting":      {seenMaster(at("l", 9), none, 6, ""), seenMaster(at("z", 9), none, 6, ""), "", none, Strangers, none},
		"first, home empty":  {seenMaster(at("l", 9), none, 6, ""), seenMaster(at("z", 0), none, 0, ""), "", none, Emptied, none},
		"history lost":       {seenReplica(testGate, false, at("x", 9), 6, "m"), seenMaster(at("z", 9), none, 6, "m"), "m", none, HistoryLost, none},
		"this one forgot":    {seenMaster(at("l", 9), none, 6, "m"), seenMaster(at("x", 90), none, 6, "m"), "m", at("x", 50), Diverged, at("x", 50)},
	} {
		r := relate(tc.local, tc.home, tc.mark, tc.fork)
		if r.Kinship != tc.want || r.Fork != tc.at {
			t.Errorf("%s: %v at %v, want %v at %v", name, r.Kinship, r.Fork, tc.want, tc.at)
		}
	}
}

// clocked steps a machine through seconds.
type clocked struct {
	m   Machine
	now time.Time
}

func newClocked() *clocked {
	return &clocked{m: Machine{DetachAfter: 5 * time.Second, Gate: testGate, Peer: testPeer}, now: time.Unix(1000, 0)}
}

// run steps every 200 ms for d and returns the last answer, or the first that acts.
func (c *clocked) run(d time.Duration, in Input) Output {
	var out Output
	for end := c.now.Add(d); !c.now.After(end); c.now = c.now.Add(200 * time.Millisecond) {
		in.Now = c.now
		if out = c.m.Step(in); out.Do != NoAction {
			break
		}
	}
	return out
}

func conditions(o Output) string {
	var keys []string
	for _, c := range o.Conditions {
		keys = append(keys, c.Key)
	}
	slices.Sort(keys)
	return strings.Join(keys, " ")
}

func TestMachineFollowsDetachesMergesReturns(t *testing.T) {
	t.Parallel()
	var none stream.Point
	c := newClocked()
	home := seenMaster(at("x", 9), none, 5, "")
	in := Input{Local: seenMaster(at("l", 0), none, 0, ""), Peer: home}
	if o := c.run(0, in); o.Do != Follow || o.Lead != There {
		t.Fatalf("an empty Redis beside a home: %+v", o)
	}
	home.Dataset = "m"
	in = Input{Mark: "m", Local: seenReplica(testGate, true, at("x", 9), 5, "m"), Peer: home}
	if o := c.run(time.Minute, in); o.Do != NoAction || o.State != Following || o.Lead != There || o.Permit != "x" || !o.Gate || len(o.Conditions) != 0 {
		t.Fatalf("following: %+v", o)
	}
	in.Peer = seenAway(Silent)
	if o := c.run(0, in); o.Lead != Nowhere || o.Permit != "" || o.Gate {
		t.Fatalf("the first silence: %+v", o)
	}
	if o := c.run(4*time.Second, in); o.Do != NoAction || o.Lead != Nowhere {
		t.Fatalf("silent for 4 s: %+v", o)
	}
	if o := c.run(2*time.Second, in); o.Do != Detach {
		t.Fatalf("silent for 5 s: %+v", o)
	}
	in.Local, in.Fork = seenMaster(at("l", 20), at("x", 9), 6, "m"), at("x", 9)
	if o := c.run(time.Hour, in); o.State != Detached || o.Lead != Here || o.Do != NoAction {
		t.Fatalf("detached: %+v", o)
	}
	in.Peer = home
	if o := c.run(time.Second, in); o.Do != NoAction || o.Lead != Here {
		t.Fatalf("home is back for a second: %+v", o)
	}
	if o := c.run(2*time.Second, in); o.Do != Merge || o.Fork != at("x", 9) {
		t.Fatalf("home is back: %+v", o)
	}
	in.Busy = Merge
	if o := c.run(time.Second, in); o.Lead != Here || o.State != Merging || o.Abort {
		t.Fatalf("merging: %+v", o)
	}
	in.CutOver = true
	if o := c.run(time.Second, in); o.Lead != There {
		t.Fatalf("cut over: %+v", o)
	}
	in.Peer = seenAway(Unreachable)
	if o := c.run(6*time.Second, in); !o.Abort || o.Lead != Nowhere {
		t.Fatalf("home dies in the merge: %+v", o)
	}
	in.HomeHere = true
	if o := c.run(0, in); !o.Abort {
		t.Fatalf("home moves here in the merge: %+v", o)
	}
	in.Busy, in.CutOver = NoAction, false
	if o := c.run(0, in); o.State != Home || o.Lead != Here {
		t.Fatalf("home is here: %+v", o)
	}
}

func TestMachineMoves(t *testing.T) {
	t.Parallel()
	var none stream.Point
	follower := seenReplica(testGate, true, at("x", 9), 5, "m")
	for name, tc := range map[string]struct {
		local, peer Seen
		after       time.Duration
		want        Action
		lead        Where
	}{
		"from a home that is well":  {follower, seenMaster(at("x", 9), none, 5, "m"), 0, Failover, Nowhere},
		"from a home that is dead":  {follower, seenAway(Unreachable), 2 * time.Second, Promote, Nowhere},
		"a moment's silence":        {follower, seenAway(Silent), 500 * time.Millisecond, NoAction, Nowhere},
		"this one is away":          {seenAway(Loading), seenMaster(at("x", 9), none, 5, "m"), time.Minute, NoAction, Nowhere},
		"already here":              {seenMaster(at("x", 9), none, 5, "m"), follower, time.Minute, NoAction, Here},
		"this one must first sync":  {seenReplica(testGate, false, at("x", 5), 5, "m"), seenMaster(at("x", 9), none, 5, "m"), time.Second, NoAction, There},
		"it follows somebody else":  {seenReplica("192.0.2.9:1", true, at("q", 5), 5, "m"), seenMaster(at("x", 9), none, 5, "m"), time.Minute, NoAction, Nowhere},
		"both are replicas already": {follower, seenReplica("10.0.0.2:6379", true, at("x", 9), 5, "m"), 2 * time.Second, Promote, Nowhere},
	} {
		c := newClocked()
		o := c.run(tc.after, Input{HomeHere: true, Mark: "m", Local: tc.local, Peer: tc.peer})
		if o.Do != tc.want || o.Lead != tc.lead {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// TestMachineBadInput: each is named, and nothing that holds data is made a copy.
func TestMachineBadInput(t *testing.T) {
	t.Parallel()
	var none stream.Point
	replica := seenReplica(testGate, false, at("x", 9), 5, "m")
	alone := seenMaster(at("l", 20), at("x", 9), 6, "m")
	home := seenMaster(at("x", 30), none, 5, "m")
	many := home
	many.Replicas = []Attached{{Port: 1234}, {Port: 1235}}
	for name, tc := range map[string]struct {
		in   Input
		want string // conditions
		do   Action // after a minute
		yes  Action // after the operator's yes
	}{
		"wrong password":      {Input{Mark: "m", Local: replica, Peer: seenAway(WrongPassword)}, "peer", Detach, Detach},
		"no permission":       {Input{Mark: "m", Local: seenAway(NoPermission), Peer: home}, "local", NoAction, NoAction},
		"renamed command":     {Input{Mark: "m", Local: seenAway(NoCommand), Peer: home}, "local", NoAction, NoAction},
		"two masters":         {Input{HomeHere: true, Mark: "m", Local: home, Peer: alone}, "two-masters", NoAction, NoAction},
		"two replicas":        {Input{Mark: "m", Local: replica, Peer: seenReplica("10.9.9.9:1", true, at("q", 1), 5, "m")}, "two-replicas", Detach, Detach},
		"a third replica":     {Input{Mark: "m", Local: seenReplica(testGate, true, at("x", 30), 5, "m"), Peer: many}, "peer-replicas", NoAction, NoAction},
		"a third master":      {Input{Mark: "m", Local: seenReplica("192.0.2.9:1", true, at("q", 5), 5, "m"), Peer: home}, "third-master", NoAction, NoAction},
		"flushed":             {Input{Mark: "m", Local: replica, Peer: home, Refused: Refusal{At: time.Unix(1, 0), Text: "X", Flush: true}}, "gate home-emptied", Detach, Detach},
		"flushed, detached":   {Input{Mark: "m", Local: alone, Peer: seenMaster(at("x", 40), none, 0, "")}, "home-emptied", NoAction, Carry},
		"restarted empty":     {Input{Mark: "m", Local: alone, Peer: seenMaster(at("z", 4), none, 1, "")}, "home-emptied", NoAction, Carry},
		"older backup":        {Input{Mark: "m", Local: replica, Peer: seenMaster(at("z", 40), at("x", 5), 5, "m")}, "home-older", Detach, Detach},
		"backup, no history":  {Input{Mark: "m", Local: alone, Peer: seenMaster(at("z", 40), none, 5, "m")}, "history-lost", NoAction, FollowAnyway},
		"something else":      {Input{Mark: "m", Local: alone, Peer: seenMaster(at("z", 40), none, 5, "other")}, "home-foreign", NoAction, NoAction},
		"never met":           {Input{Local: seenMaster(at("l", 9), none, 6, ""), Peer: seenMaster(at("z", 9), none, 6, "")}, "strangers", NoAction, Carry},
		"not covered":         {Input{Mark: "m", Local: alone, Peer: home, Failed: mergeNotCovered}, "not-covered", NoAction, FollowAnyway},
		"unknown layout":      {Input{Mark: "m", Local: alone, Peer: home, Failed: mergeLayout}, "layout", NoAction, FollowAnyway},
		"home emptied, home":  {Input{HomeHere: true, Mark: "m", Local: seenMaster(at("z", 0), none, 0, ""), Peer: alone}, "emptied two-masters", NoAction, NoAction},
		"gate without a word": {Input{Mark: "m", Local: replica, Peer: home, Refused: Refusal{At: time.Unix(1, 0), Text: "X"}}, "gate", NoAction, NoAction},
	} {
		c := newClocked()
		o := c.run(time.Minute, tc.in)
		if got := conditions(o); got != tc.want || o.Do != tc.do {
			t.Errorf("%s: %q and %q, want %q and %q", name, got, o.Do, tc.want, tc.do)
		}
		tc.in.Approved = true
		c = newClocked()
		if o := c.run(time.Minute, tc.in); o.Do != tc.yes {
			t.Errorf("%s: with a yes %q, want %q", name, o.Do, tc.yes)
		}
	}
}
