package imapsync

import (
	"fmt"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Side is one of the two sides of an account.
type Side int

// The two sides.
const (
	A Side = 0
	B Side = 1
)

// Other is the opposite side.
func (s Side) Other() Side { return 1 - s }

// String is "a" or "b".
func (s Side) String() string { return string(rune('a' + s)) }

// MarshalText is "a" or "b".
func (s Side) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads "a" or "b".
func (s *Side) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSide(string(text))
	return err
}

// ParseSide reads "a" or "b".
func ParseSide(s string) (Side, error) {
	switch s {
	case "a":
		return A, nil
	case "b":
		return B, nil
	}
	return A, fmt.Errorf("side %q is neither a nor b", s)
}

// PassOptions is one pass.
type PassOptions struct {
	// DryRun decides and reports, and writes nothing anywhere.
	DryRun bool
	// Folders, where not empty, are patterns (as in Config.Exclude); others are left
	// alone, as if they had not changed.
	Folders []string
	// Full reads every box whole instead of trusting the servers' MODSEQ.
	Full bool
	// Progress, where not nil, is called now and then from the pass's goroutines,
	// never two at a time.
	Progress func(Progress)
}

// Progress is how far a pass is. Totals grow when more work is found.
type Progress struct {
	Phase                     string // "list", "compare", "folders", "move", "flags", "copy", "delete", "commit"
	Messages, MessagesTotal   int
	Bytes, BytesTotal         int64
	Folder                    string
	Copied, Moved, Flags, Del int
}

// Report is what a pass did or, in a dry run, would do. It is filled in as far as
// the pass came, also when Pass returns an error.
type Report struct {
	Started  time.Time     `json:"started"`
	Duration time.Duration `json:"duration_ns"`
	DryRun   bool          `json:"dry_run,omitempty"`
	Rounds   int           `json:"rounds"`
	// Counts by the side that was changed.
	Sides [2]SideReport `json:"sides"`
	// Paired messages were found on both sides by content; nothing was transferred.
	Paired int `json:"paired,omitempty"`
	// Conflicts were decided by the rules.
	Conflicts []Conflict `json:"conflicts,omitempty"`
	// Faults are what could not be done: the account is not clean.
	Faults []Fault `json:"faults,omitempty"`
	// Holds are the deletions that wait for a person, old ones too.
	Holds []Hold `json:"holds,omitempty"`
	// Notes are what an operator may want to know: a lost base, a side that went back in time.
	Notes []string `json:"notes,omitempty"`
	// Actions is the plan in words, in a dry run only.
	Actions []string `json:"actions,omitempty"`
	// Converged: the last round found nothing to do, besides holds and faults.
	Converged bool `json:"converged"`
}

// SideReport counts changes of one side.
type SideReport struct {
	Appended       int   `json:"appended"`
	AppendedBytes  int64 `json:"appended_bytes"`
	Moved          int   `json:"moved"`
	Copied         int   `json:"copied"` // inside the server
	FlagChanges    int   `json:"flag_changes"`
	Deleted        int   `json:"deleted"`
	FoldersCreated int   `json:"folders_created"`
	FoldersRenamed int   `json:"folders_renamed"`
	FoldersDeleted int   `json:"folders_deleted"`
	Subscriptions  int   `json:"subscriptions"`
}

// Clean says that both sides are equal: nothing failed and nothing is held.
func (r *Report) Clean() bool { return r.Converged && len(r.Faults) == 0 && len(r.Holds) == 0 }

// Changes counts all changes on both sides.
func (r *Report) Changes() int {
	n := 0
	for _, s := range r.Sides {
		n += s.Appended + s.Moved + s.Copied + s.FlagChanges + s.Deleted +
			s.FoldersCreated + s.FoldersRenamed + s.FoldersDeleted + s.Subscriptions
	}
	return n
}

// Conflict is something both sides changed, and how it was decided.
type Conflict struct {
	Kind   string   `json:"kind"` // "delete-flag", "delete-move", "move-move", "folder-delete-mail", "rename-rename", "folder-clash"
	Folder string   `json:"folder"`
	UID    imap.UID `json:"uid,omitempty"`
	Side   Side     `json:"side"` // the side that won
}

// Fault is one thing that could not be done.
type Fault struct {
	Side   Side     `json:"side"`
	Folder string   `json:"folder"`
	UID    imap.UID `json:"uid,omitempty"`
	Kind   string   `json:"kind"` // "over-quota", "too-big", "refused", "no-access", "bad-body", "same-uidvalidity", "name", "no-uidplus", "unreadable"
	Text   string   `json:"text"`
}

// String is one line for people.
func (f Fault) String() string {
	where := f.Folder
	if f.UID != 0 {
		where = fmt.Sprintf("%s UID %d", where, f.UID)
	}
	return fmt.Sprintf("%s on side %s: %s", where, f.Side, f.Text)
}

// Hold is a group of deletions of one folder that waits for approval.
type Hold struct {
	ID string `json:"id"`
	// Side is where the messages still are.
	Side     Side      `json:"side"`
	Folder   string    `json:"folder"`
	Messages int       `json:"messages"`
	Of       int       `json:"of"` // messages the folder had
	Reason   string    `json:"reason"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	// State is "waiting", "approved" or "rejected"; the next pass acts on the latter two.
	State string `json:"state"`
}
