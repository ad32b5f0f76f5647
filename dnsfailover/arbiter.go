package dnsfailover

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// What an Arbiter or a Publisher answers when it does not do what it was asked.
// Everything but ErrConflict, ErrForeign and ErrMissing means "unknown": whoever
// asked knows no more than before.
var (
	// ErrConflict: the register does not hold the old value; nothing was changed.
	ErrConflict = errors.New("the register has moved")
	// ErrForeign: a record's present value is not the one that was to be replaced;
	// nothing was changed. Such an error is a *ForeignError where the records are
	// known.
	ErrForeign = errors.New("a record was changed by somebody else")
	// ErrMissing: the authority was reached and has no register. Nobody creates
	// one by itself.
	ErrMissing = errors.New("there is no register")
	// ErrBadRegister: the authority was reached and holds something that is no
	// register, or several.
	ErrBadRegister = errors.New("the register cannot be read")
	// ErrBadTime: the authority refuses the request's time (TSIG BADTIME, RFC
	// 8945, section 5.2.3): one of the two clocks is wrong.
	ErrBadTime = errors.New("the clocks of this machine and the register differ")
	// ErrBadKey: the authority does not know the key, or its signature is wrong
	// (TSIG BADKEY, BADSIG), or it refuses what the key may not do.
	ErrBadKey = errors.New("the register refuses our key")
	// ErrUnreachable: nothing was sent, or a read had no valid answer in time.
	ErrUnreachable = errors.New("the register cannot be reached")
	// ErrUnknownOutcome: a change was sent and no valid answer came: it may have
	// taken place. Read, and look for the nonce.
	ErrUnknownOutcome = errors.New("no answer to a change: it may have taken place")
	// ErrRefused: the authority understood and did not do it for a reason of its
	// own (no such zone, not authoritative, its disk is full). Nothing was changed.
	ErrRefused = errors.New("the register refuses the change")
)

// ForeignError names the records that stopped a change.
type ForeignError struct {
	// Found are the present values, which are not those that were expected.
	Found []RRSet
}

// Error implements error.
func (e *ForeignError) Error() string {
	names := make([]string, len(e.Found))
	for i, s := range e.Found {
		names[i] = fmt.Sprintf("%s %s is %s", s.Name, s.Type, strings.Join(s.Values, ", "))
	}
	return ErrForeign.Error() + ": " + strings.Join(names, "; ")
}

// Is makes errors.Is(err, ErrForeign) true.
func (e *ForeignError) Is(target error) bool { return target == ErrForeign }

// Arbiter holds the register. All methods may be called concurrently, have a
// deadline of their own below that of ctx, and answer an ended ctx with an error
// that Is ErrUnreachable (nothing sent) or ErrUnknownOutcome.
//
// Only an answer that is proven to come from the authority is an answer: an
// unsigned one is none.
type Arbiter interface {
	// Read returns the register as the authority holds it, never from a cache or
	// a secondary. The answer is to a request that was sent after the call began:
	// a caller that counts a permit from the beginning of the call counts too
	// little, never too much. Errors: ErrMissing, ErrBadRegister, ErrBadTime,
	// ErrBadKey, ErrUnreachable. May be retried.
	Read(ctx context.Context) (Register, error)

	// CompareAndSwap replaces old with new and applies changes, all or nothing.
	// old is compared as a whole; the zero Register stands for "there is none".
	// Of several callers with the same old exactly one gets nil. A change takes
	// place only if the present values of its record are exactly change.Old.
	// nil promises that new is what the authority holds (or held, if somebody has
	// replaced it since) and that all changes took place. Errors: ErrConflict,
	// ErrForeign, ErrBadTime, ErrBadKey, ErrRefused: nothing was changed, and
	// ErrUnreachable: nothing was sent, and ErrUnknownOutcome. After the last, a
	// call with the same arguments is safe: where the first took place it must
	// answer nil or ErrConflict and change nothing; the caller reads.
	//
	// An implementation that has no records (a witness) returns ErrRefused if
	// there are changes.
	CompareAndSwap(ctx context.Context, old, new Register, changes []RRChange) error

	// Records returns the present values of the given records from the same
	// authority, in the order asked for. A record that does not exist has no
	// values. Errors as Read, without ErrMissing. May be retried.
	Records(ctx context.Context, keys []RRKey) ([]RRSet, error)
}

// Publisher changes records outside the register's zone, or where the register
// is a witness. All methods may be called concurrently.
type Publisher interface {
	// Records is as Arbiter's.
	Records(ctx context.Context, keys []RRKey) ([]RRSet, error)

	// Apply makes the changes, each only if the record's present values are
	// change.Old or already change.New (then it is left alone). epoch is noted
	// beside the records where the implementation can: a change with an epoch
	// lower than the noted one returns ErrConflict. Several changes may be
	// applied one by one; an error may leave some made. Errors as CompareAndSwap.
	// May be retried with the same arguments.
	Apply(ctx context.Context, epoch uint64, changes []RRChange) error
}
