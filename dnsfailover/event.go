package dnsfailover

import "time"

// Mode is what a site may do by itself.
type Mode string

// The modes.
const (
	// Observe decides and says so, and moves nothing.
	Observe Mode = "observe"
	// Automatic moves the role by itself.
	Automatic Mode = "automatic"
	// Manual moves the role only when an operator says so.
	Manual Mode = "manual"
)

// Outcome is what came of a request to the register.
type Outcome uint8

// The outcomes.
const (
	// Unknown: no answer, or one that says nothing (unreachable, lost, wrong key).
	Unknown Outcome = iota
	// OK: the register was read, or the change took place.
	OK
	// Conflict: the register holds another value; nothing was changed.
	Conflict
	// Foreign: a record was changed by somebody else; nothing was changed.
	Foreign
	// Absent: the authority answers and has no register.
	Absent
)

// Event is what a Machine is told. Every event comes with the moment it is told.
type Event interface{ event() }

// The events.
type (
	// Tick says that time has passed; see Machine.Next.
	Tick struct{}
	// ReadDone answers the action Read.
	ReadDone struct {
		// Sent is a moment before the request left.
		Sent     Instant
		Register Register
		Outcome  Outcome // OK, Unknown or Absent
		Reason   string
	}
	// SwapDone answers the action Swap.
	SwapDone struct {
		Sent    Instant
		Swap    Swap
		Outcome Outcome // all but Absent
		Reason  string
	}
	// PromiseAsked is a question of the peer, which is active in Epoch and
	// cannot reach the register. Step answers with the action PromiseAnswer.
	PromiseAsked struct{ Epoch uint64 }
	// PromiseDone answers the action AskPromise.
	PromiseDone struct {
		Sent  Instant
		Epoch uint64
		Given bool
	}
	// Link says that the link to the peer came up or went down.
	Link struct{ Up bool }
	// PeerSays is what the peer tells about itself, every poll while the link is up.
	PeerSays struct{ PeerState }
	// Probed is one probe of this site's services (Self), or of the peer's through
	// its public address.
	Probed struct {
		Self   bool
		Failed bool
		Reason string
	}
	// Stopped says that the work asked to stop by StopWork has ended, or has used
	// up its limit.
	Stopped struct{ Epoch uint64 }
	// Nudge says that the register is worth reading now.
	Nudge struct{}
	// Records says that managed records hold what nobody here wrote ("" if none).
	Records struct{ Foreign string }
	// Operator is a command; Step answers with the action Reply.
	Operator struct {
		Command Command
		// To is the site a switchover goes to.
		To Site
		// Restore is the epoch that Initialise writes; 0: the next one.
		Restore uint64
	}
	// ForcedSaved says that the epoch of SaveForced is on disk.
	ForcedSaved struct{ Epoch uint64 }
	// ForcedNotSaved says that the epoch of SaveForced is not on disk.
	ForcedNotSaved struct{ Epoch uint64 }
	// Configured changes what may change while running.
	Configured struct {
		Mode Mode
		Hash string
	}
)

func (Tick) event()           {}
func (ReadDone) event()       {}
func (SwapDone) event()       {}
func (PromiseAsked) event()   {}
func (PromiseDone) event()    {}
func (Link) event()           {}
func (PeerSays) event()       {}
func (Probed) event()         {}
func (Stopped) event()        {}
func (Nudge) event()          {}
func (Records) event()        {}
func (Operator) event()       {}
func (ForcedSaved) event()    {}
func (ForcedNotSaved) event() {}
func (Configured) event()     {}

// Command is what an operator may want of a Machine.
type Command string

// The commands.
const (
	// SwitchOver hands the active role to Operator.To; only the active site can.
	SwitchOver Command = "switchover"
	// ForceFailover takes the role for this site though nobody knows that the other
	// is dead, also without a register.
	ForceFailover Command = "failover --force"
	// Pause and Resume: no site moves the role by itself.
	Pause  Command = "pause"
	Resume Command = "resume"
	// MaintenanceOn: this site never claims; if it is active it hands over first.
	MaintenanceOn  Command = "maintenance on"
	MaintenanceOff Command = "maintenance off"
	// Acknowledge allows the next automatic move at once.
	Acknowledge Command = "acknowledge"
	// Initialise writes a register where there is none.
	Initialise Command = "init"
)

// PeerState is what one site tells the other about itself.
type PeerState struct {
	// Role is the site's own view, Epoch of the register it last read.
	Role  string `json:"role"`
	Epoch uint64 `json:"epoch"`
	// Holder is who holds the role as that site knows.
	Holder Site `json:"holder,omitempty"`
	// Sick: its own probes say that it cannot serve. Why says what.
	Sick bool   `json:"sick,omitempty"`
	Why  string `json:"why,omitempty"`
	// GoodFor is how long its own probes have succeeded.
	GoodFor time.Duration `json:"good_for"`
	// Ready: it could take the role now. NotReady says why not.
	Ready    bool   `json:"ready"`
	NotReady string `json:"not_ready,omitempty"`
	// Forced is the epoch an operator forced there; 0 if none.
	Forced uint64 `json:"forced,omitempty"`
	// Config is the first 8 digits of its configuration hash.
	Config string `json:"config"`
	// Mode, Paused and Maintenance are its settings.
	Mode        Mode `json:"mode"`
	Maintenance bool `json:"maintenance,omitempty"`
	// QuietFor is how long there will be no automatic move from its side.
	QuietFor time.Duration `json:"quiet_for,omitempty"`
}

// Action is what a Machine wants done.
type Action interface{ action() }

// The actions.
type (
	// Read reads the register; answered by ReadDone. At most one Read or Swap is
	// under way at a time.
	Read struct{}
	// Swap changes the register; answered by SwapDone.
	Swap struct {
		Kind     SwapKind
		Old, New Register
		// Records says that the managed records move to New.Holder with it.
		Records bool
	}
	// AskPromise asks the peer; answered by PromiseDone.
	AskPromise struct{ Epoch uint64 }
	// PromiseAnswer is the answer to PromiseAsked.
	PromiseAnswer struct {
		Given  bool
		Reason string
	}
	// StopWork ends what only the active site does; answered by Stopped.
	StopWork struct{ Epoch uint64 }
	// NudgePeer tells the peer that the register is worth reading.
	NudgePeer struct{}
	// SaveForced puts an epoch on disk; answered by ForcedSaved. 0 forgets it.
	SaveForced struct{ Epoch uint64 }
	// Reply is the answer to a command: refused with a reason, or "".
	Reply struct{ Refused string }
	// Note is a line for the history.
	Note struct {
		Kind string
		Text string
	}
	// Alarm raises a condition, or clears it (empty Text).
	Alarm struct{ Key, Text string }
)

func (Read) action()          {}
func (Swap) action()          {}
func (AskPromise) action()    {}
func (PromiseAnswer) action() {}
func (StopWork) action()      {}
func (NudgePeer) action()     {}
func (SaveForced) action()    {}
func (Reply) action()         {}
func (Note) action()          {}
func (Alarm) action()         {}

// SwapKind is why the register is changed.
type SwapKind string

// The kinds of change.
const (
	Claim    SwapKind = "claim"     // I want the role; the wait begins when I see it there
	Object   SwapKind = "object"    // I am alive: the claim goes
	Take     SwapKind = "take"      // nobody objected: the role and the records are mine
	HandOver SwapKind = "hand over" // the role and the records are the peer's
	Withdraw SwapKind = "withdraw"  // I do not want the role any more
	Renew    SwapKind = "renew"     // still mine, after a start or with another configuration
	SetPause SwapKind = "pause"     // or resume
	Write    SwapKind = "init"      // there was no register
)
