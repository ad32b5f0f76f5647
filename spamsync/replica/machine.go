package replica

import (
	"fmt"
	"time"

	"understudy/spamsync/replica/stream"
)

// State is what this site's Redis is doing.
type State string

// The states.
const (
	// Starting: not enough was seen yet.
	Starting State = "starting"
	// Home: this Redis takes the writes of both sites.
	Home State = "home"
	// Following: it copies home, and home takes the writes.
	Following State = "following"
	// Detached: it stands alone and takes this site's writes.
	Detached State = "detached"
	// Merging: what was written here is carried to home.
	Merging State = "merging"
	// Moving: the writes are being moved from the other Redis to this one.
	Moving State = "moving"
)

// Where says where the endpoint leads.
type Where uint8

// The places.
const (
	Nowhere Where = iota
	Here
	There
)

// Action is something that takes a while. Only one is at work at a time.
type Action string

// The actions.
const (
	NoAction Action = ""
	// Follow makes this Redis a replica of home, through the gate.
	Follow Action = "follow"
	// Detach promotes this Redis and records the fork.
	Detach Action = "detach"
	// Promote makes this Redis home where the old home is gone.
	Promote Action = "promote"
	// Failover moves the writes here from a home that is well.
	Failover Action = "failover"
	// Merge carries over what was written here after Output.Fork, and follows.
	Merge Action = "merge"
	// Carry carries over everything that is here, and follows.
	Carry Action = "carry"
	// FollowAnyway follows although what was written here is lost by it.
	FollowAnyway Action = "follow-anyway"
)

// Condition is something an operator should know. Key is stable.
type Condition struct {
	Key  string `json:"key"`
	Text string `json:"text"`
	// Ask says that it waits for `understudy spam merge`.
	Ask bool `json:"ask,omitempty"`
}

// Kinds of failure of a merge, as far as Machine tells them apart.
type mergeFailure uint8

const (
	mergeFine mergeFailure = iota
	mergeAgain
	mergeNotCovered
	mergeLayout
)

// Input is everything Machine knows at one moment.
type Input struct {
	Now         time.Time
	HomeHere    bool
	Local, Peer Seen
	// Mark and Fork are what was recorded: the dataset that was followed, and where
	// this site detached.
	Mark string
	Fork stream.Point
	// Busy is the action at work; CutOver says that a merge has come to the point
	// where writes go to home.
	Busy    Action
	CutOver bool
	// Failed is how the last merge ended, and FailedAt when.
	Failed   mergeFailure
	FailedAt time.Time
	// Refused is what the gate refused last.
	Refused Refusal
	// Approved says that the operator wants what a condition asks for.
	Approved bool
}

// Output is what is to be done. Gate and Permit count only while nothing is at work.
type Output struct {
	State  State
	Lead   Where
	Gate   bool
	Permit string
	Do     Action
	Fork   stream.Point
	// Abort ends the action at work.
	Abort      bool
	Conditions []Condition
	Relation   Relation
}

// Machine decides. It has no clock and does no I/O: the same inputs give the same
// outputs. It is not for concurrent use.
type Machine struct {
	// DetachAfter is how long home may be away.
	DetachAfter time.Duration
	// Gate and Peer are host:port, as a Redis shows what it follows.
	Gate, Peer string

	homeHere   bool
	began      time.Time
	usable     time.Time // when home was usable last
	usableFrom time.Time // since when it is; zero where it is not
	bothMaster time.Time // since when both take writes although this one is home
}

// Times that are not worth a key.
const (
	// settle is how long a home that came back must be there before it is believed.
	settle = 2 * time.Second
	// promoteAfter is how long the old home must be silent before this one is promoted
	// without it, once the role was moved here.
	promoteAfter = time.Second
	// mergeRetry is the time between attempts of a merge that could not be finished.
	mergeRetry = 10 * time.Second
	// followGrace is how long another master may take to follow.
	followGrace = 30 * time.Second
)

// Step looks at everything and says what to do.
func (m *Machine) Step(in Input) Output {
	if m.began.IsZero() || m.homeHere != in.HomeHere {
		m.homeHere, m.began = in.HomeHere, in.Now
		m.usable, m.usableFrom, m.bothMaster = in.Now, time.Time{}, time.Time{}
	}
	out := Output{State: Starting}
	if !in.HomeHere {
		out.Relation = relate(in.Local, in.Peer, in.Mark, in.Fork)
		if in.Refused.Flush && out.Relation.Kinship != Unclear {
			out.Relation = Relation{Kinship: Emptied}
		}
	}
	usable := in.Peer.Master() && out.Relation.Kinship != Foreign && out.Relation.Kinship != Emptied &&
		(out.Relation.Kinship != Unclear || in.Mark == "" || in.Peer.Dataset == in.Mark)
	if in.Busy == Carry || in.Busy == FollowAnyway {
		usable = in.Peer.Master() // the operator has said that it is the right one
	}
	if usable {
		m.usable = in.Now
		if m.usableFrom.IsZero() {
			m.usableFrom = in.Now
		}
	} else {
		m.usableFrom = time.Time{}
	}
	if in.HomeHere {
		m.home(&in, &out)
	} else {
		m.away(&in, &out, usable)
	}
	if in.Busy != NoAction {
		out.Do = NoAction
	}
	out.Conditions = append(out.Conditions, troubles(&in)...)
	return out
}

// home is the step of the site that is home.
func (m *Machine) home(in *Input, out *Output) {
	if in.Busy == Merge || in.Busy == Carry || in.Busy == Follow || in.Busy == FollowAnyway {
		out.Abort = true // the role has moved here meanwhile
		return
	}
	local, peer := in.Local, in.Peer
	switch {
	case local.Master():
		out.State, out.Lead = Home, Here
		m.homeOther(in, out)
	case !local.Up():
		out.State = Home
	case local.Replica():
		m.take(in, out)
	default:
		out.State = Moving
	}
	if out.Do != NoAction || in.Busy == Failover || in.Busy == Promote {
		out.State, out.Lead = Moving, Nowhere
	}
	if !peer.Master() {
		m.bothMaster = time.Time{}
	}
}

// homeOther looks at the other site from home.
func (m *Machine) homeOther(in *Input, out *Output) {
	local, peer := in.Local, in.Peer
	if in.Mark != "" && local.Dataset == "" && peer.Up() && peer.Dataset == in.Mark {
		out.say("emptied", "this Redis takes the writes and was emptied; the other one still holds its data and must not follow: at the other site, understudy spam merge")
	}
	if !peer.Master() {
		return
	}
	if m.bothMaster.IsZero() {
		m.bothMaster = in.Now
	}
	if in.Now.Sub(m.bothMaster) > followGrace {
		out.say("two-masters", "both Redis take writes; the other site's understudy has not merged and followed")
	}
}

// take moves the writes to this Redis, which still follows.
func (m *Machine) take(in *Input, out *Output) {
	local, peer := in.Local, in.Peer
	out.State = Moving
	if !m.ours(local, peer) {
		out.say("third-master", "this Redis follows "+local.Info.Master+", which is not the other site; nothing is changed")
		return
	}
	switch {
	case peer.Master() && local.LinkUp:
		out.Do = Failover
	case peer.Master():
		// It must catch up first.
		out.Lead, out.Gate = There, true
		if local.Now.ID == peer.Now.ID {
			out.Permit = peer.Now.ID
		}
		if in.Now.Sub(m.began) > m.DetachAfter {
			out.Do = Promote
		}
	case in.Now.Sub(m.usable) >= promoteAfter:
		out.Do = Promote
	}
}

// away is the step of the site that is not home.
func (m *Machine) away(in *Input, out *Output, usable bool) {
	local := in.Local
	gone := in.Now.Sub(m.usable) >= m.DetachAfter
	m.busy(in, out, usable, gone)
	if in.Busy != NoAction {
		return
	}
	switch {
	case !local.Up():
		if usable {
			out.Lead = There
		}
	case local.Replica():
		m.follow(in, out, usable, gone)
	case local.Master():
		m.alone(in, out, usable, gone)
	default:
		out.State = Moving // it is handing the writes over
	}
}

// busy says what holds while an action is at work.
func (m *Machine) busy(in *Input, out *Output, usable, gone bool) {
	switch in.Busy {
	case Merge, Carry:
		out.State, out.Lead = Merging, Here
		out.Abort = gone
		if in.CutOver {
			out.Lead = Nowhere
			if usable {
				out.Lead = There
			}
		}
	case Follow, FollowAnyway:
		out.State = Following
		out.Abort = gone
		if usable {
			out.Lead = There
		}
	case Detach:
		out.State = Detached
	case Failover, Promote:
		out.State, out.Abort = Moving, true // the role has moved away again
	case NoAction:
	}
}

// follow is the step of a replica.
func (m *Machine) follow(in *Input, out *Output, usable, gone bool) {
	local, peer := in.Local, in.Peer
	out.State = Following
	if !m.ours(local, peer) {
		out.State = Starting
		out.say("third-master", "this Redis follows "+local.Info.Master+", which is not the other site; nothing is changed")
		if usable {
			out.Lead = There
		}
		return
	}
	if !usable {
		if peer.Replica() {
			out.say("two-replicas", "both Redis are replicas: the other one follows "+peer.Info.Master+", and nobody takes writes")
		}
		m.recognise(in, out)
		if gone {
			out.Do, out.State = Detach, Detached
		}
		return
	}
	out.Lead, out.Gate = There, true
	switch out.Relation.Kinship {
	case Contained:
		out.Permit = peer.Now.ID
		if local.Info.Master != m.Gate {
			out.Do = Follow // through the gate
		}
	case Diverged:
		// Home has gone back: what it lost is here, and is merged into it.
		out.say("home-older", fmt.Sprintf("home is at an older place than this copy (%d bytes); what it lost is carried back", local.Now.Offset-out.Relation.Fork.Offset))
		if in.Now.Sub(m.usableFrom) >= settle {
			out.Do, out.State, out.Lead = Detach, Detached, Nowhere
		}
	case Unclear, Emptied, Foreign, Strangers, HistoryLost:
		m.recognise(in, out)
		if in.Approved && out.Relation.Kinship == HistoryLost {
			out.Do = FollowAnyway
		} else if in.Approved && out.Relation.Kinship == Strangers {
			out.Do, out.State, out.Lead = Detach, Detached, Nowhere
		}
	}
}

// ours says whether what a replica follows is the other site.
func (m *Machine) ours(local, peer Seen) bool {
	at := local.Info.Master
	return at == m.Gate || at == m.Peer || peer.Up() && (local.Now.ID == peer.Now.ID || local.Now.ID == peer.Before.ID)
}

// alone is the step of a master that is not home.
func (m *Machine) alone(in *Input, out *Output, usable, gone bool) {
	out.State, out.Lead = Detached, Here
	fresh := in.Mark == "" && in.Fork.IsZero()
	m.recognise(in, out)
	if in.Approved && in.Peer.Master() && out.Relation.Kinship == Emptied {
		out.Do = Carry
	}
	if !usable {
		if fresh && !gone {
			out.State, out.Lead = Starting, Nowhere
		}
		if in.Peer.Replica() && in.Peer.Info.Master != "" && in.Peer.Now.ID != in.Local.Now.ID {
			out.say("two-homes", "the other Redis should take the writes, but follows "+in.Peer.Info.Master)
		}
		return
	}
	if fresh && out.Relation.Kinship == Contained {
		out.Do, out.State, out.Lead = Follow, Following, There
		return
	}
	if in.Now.Sub(m.usableFrom) < settle {
		return
	}
	switch out.Relation.Kinship {
	case Contained:
		out.Do = Follow
	case Diverged:
		m.merge(in, out)
	case Strangers:
		if in.Approved {
			out.Do = Carry
		}
	case HistoryLost:
		if in.Approved {
			out.Do = FollowAnyway
		}
	case Unclear, Emptied, Foreign:
	}
}

// merge starts a merge, unless one has just ended badly.
func (m *Machine) merge(in *Input, out *Output) {
	out.Fork = out.Relation.Fork
	lost := fmt.Sprintf("%d bytes of changes written here since %v", in.Local.Now.Offset-out.Fork.Offset, out.Fork)
	switch {
	case in.Failed == mergeNotCovered && in.Approved, in.Failed == mergeLayout && in.Approved:
		out.Do = FollowAnyway
	case in.Failed == mergeNotCovered:
		out.ask("not-covered", "neither Redis nor the journal has "+lost+"; following now loses them: understudy spam merge --yes")
	case in.Failed == mergeLayout:
		out.ask("layout", "the spam state is laid out in a way that is not known, and cannot be merged; following now loses "+lost+": understudy spam merge --yes")
	case in.Failed == mergeAgain && in.Now.Sub(in.FailedAt) < mergeRetry:
	default:
		out.Do, out.State = Merge, Merging
	}
}

// recognise names what is wrong with home's data.
func (m *Machine) recognise(in *Input, out *Output) {
	if !in.Peer.Master() {
		return
	}
	here := fmt.Sprintf("%d keys here", in.Local.Keys)
	switch out.Relation.Kinship {
	case Emptied:
		out.ask("home-emptied", "home was flushed or started again empty; "+here+" stay as they are, and writes stay here. understudy spam merge --yes carries them to home")
	case Foreign:
		out.say("home-foreign", "the other Redis holds data of something else (its mark is "+in.Peer.Dataset+"): check spam.redis.peer; nothing is copied or merged")
	case Strangers:
		out.ask("strangers", fmt.Sprintf("both Redis hold data and never met (%s, %d at home). understudy spam merge --yes adds this site's to home's and follows; or empty this site's Redis", here, in.Peer.Keys))
	case HistoryLost:
		out.ask("history-lost", "home was restarted from an append-only file, or from a backup: what it has lost cannot be told. understudy spam merge --yes follows home and gives up what only this site has ("+here+fmt.Sprintf(", %d at home)", in.Peer.Keys))
	case Unclear, Contained, Diverged:
	}
}

// troubles names what keeps a server from being used.
func troubles(in *Input) []Condition {
	var out []Condition
	for _, s := range []struct {
		key, name string
		seen      Seen
	}{{"local", "this site's Redis", in.Local}, {"peer", "the other site's Redis", in.Peer}} {
		if s.seen.At.IsZero() {
			continue
		}
		if s.seen.Trouble != NoTrouble {
			out = append(out, Condition{Key: s.key, Text: fmt.Sprintf("%s: %s (%.200s)", s.name, s.seen.Trouble, s.seen.Why)})
		}
		if n := len(s.seen.Replicas); n > 1 {
			out = append(out, Condition{Key: s.key + "-replicas", Text: fmt.Sprintf("%s is followed by %d replicas; one is expected", s.name, n)})
		}
	}
	if r := in.Refused; !r.At.IsZero() && !in.HomeHere {
		out = append(out, Condition{Key: "gate", Text: "the gate refused " + r.Text})
	}
	return out
}

func (o *Output) say(key, text string) {
	o.Conditions = append(o.Conditions, Condition{Key: key, Text: text})
}

func (o *Output) ask(key, text string) {
	o.Conditions = append(o.Conditions, Condition{Key: key, Text: text, Ask: true})
}
