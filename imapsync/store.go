package imapsync

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/emersion/go-imap/v2"
)

// HiddenPrefix begins the names of folders that belong to the synchroniser. They
// are listed like others, never synchronised, and unsubscribed.
const HiddenPrefix = "_understudy"

// Sentinels of Store. Anything else is unknown: the pass of this account ends,
// nothing is concluded from it, and the next pass looks again.
var (
	// ErrNoBox: the box does not exist, or may not be seen.
	ErrNoBox = errors.New("no such mailbox")
	// ErrBoxExists: the name is taken.
	ErrBoxExists = errors.New("mailbox exists")
	// ErrNotEmpty: the box that should be deleted holds messages or has children.
	ErrNotEmpty = errors.New("mailbox is not empty")
	// ErrReplaced: UIDVALIDITY is not the one that was expected; nothing was done.
	ErrReplaced = errors.New("mailbox was replaced")
	// ErrNoAccess: the server refused for want of rights (NOPERM, a read-only box).
	ErrNoAccess = errors.New("no access")
	// ErrOverQuota: the account is full (OVERQUOTA).
	ErrOverQuota = errors.New("over quota")
	// ErrTooBig: the message is larger than the server takes (TOOBIG, LIMIT, APPENDLIMIT).
	ErrTooBig = errors.New("message too large")
	// ErrRefused: the server said a clear NO to this one thing for another reason.
	ErrRefused = errors.New("refused by the server")
	// ErrBadBody: a body did not have the length the server had promised.
	ErrBadBody = errors.New("body has another length than RFC822.SIZE")
	// ErrNoName: the name cannot be written on this server (its separator is in it, for example).
	ErrNoName = errors.New("name not possible on this server")
	// ErrGone: the message does not exist any more.
	ErrGone = errors.New("message is gone")
)

// Cursor is how far a box has been seen. Two equal cursors with a ModSeq mean
// that nothing happened in between.
type Cursor struct {
	Validity uint32   // UIDVALIDITY; 0: the box has never been seen
	Next     imap.UID // UIDNEXT
	ModSeq   uint64   // HIGHESTMODSEQ; 0: the server does not keep it, so the box is read in every pass
	Messages uint32   // MESSAGES
}

// Box is one mailbox of a listing.
type Box struct {
	// Name is canonical: "INBOX" in capitals, levels separated by "/", UTF-8,
	// relative to the personal namespace. Whatever the server's separator and
	// encoding are, two servers that hold the same folder give the same name.
	Name string
	// ID is MAILBOXID (RFC 8474), or "".
	ID string
	// Cursor is zero for a box that cannot be selected.
	Cursor Cursor
	// Subscribed is what LSUB or LIST RETURN (SUBSCRIBED) says.
	Subscribed bool
	// Use is the special use with its backslash, "\Sent", or "".
	Use string
	// NoSelect: a name without a mailbox, only there for its children.
	NoSelect bool
	// Foreign: in the namespace of other users, or shared.
	Foreign bool
	// ReadOnly: MYRIGHTS or READ-ONLY says that messages cannot be changed here.
	ReadOnly bool
}

// Listing is the whole account at one moment.
type Listing struct {
	// Boxes has every box, in any order, foreign and virtual ones too.
	Boxes []Box
	// GIDs says that messages have identities that survive COPY and MOVE on this
	// server: X-GUID or EMAILID.
	GIDs bool
	// LimitBytes is APPENDLIMIT; 0: not known.
	LimitBytes int64
}

// Message is what is known of a message without its body.
type Message struct {
	UID imap.UID
	// Flags are the current ones, without \Recent.
	Flags Flags
	// ModSeq is that of the message; 0: not known.
	ModSeq uint64
	// The rest is filled in for messages that are not in Since.Known or whose UID
	// is not below Since.Cursor.Next, and always by Describe.
	Size int64     // RFC822.SIZE in bytes
	Date time.Time // INTERNALDATE, with the zone the server gave
	GID  string    // X-GUID or EMAILID; "": the server has none
	Key  Key       // content key; zero: it was not asked for (never needed of those in Known)
}

// Since asks what happened in a box.
type Since struct {
	Box string
	// Cursor is what was seen last; the zero Cursor asks for everything.
	Cursor Cursor
	// Known are the messages the caller knows, ascending. Empty with the zero Cursor.
	Known []imap.UID
	// Keys asks for the content key of every message that is not in Known. It
	// costs the server a look into each message.
	Keys bool
}

// Delta is the answer to Since.
type Delta struct {
	// Cursor is the state of the box that this delta leads to, as of the SELECT.
	// A change that came later may be missing here, and then shows in the next one.
	Cursor Cursor
	// Messages are those that changed since Since.Cursor, and those whose UID is not
	// below its Next; with the zero Cursor or another UIDVALIDITY, all. Giving
	// more of them is no fault (a server without CONDSTORE gives all each time).
	// Ascending by UID.
	Messages []Message
	// Vanished are those of Known that do not exist any more: all of them, also
	// when they went before Since.Cursor. Ascending.
	// Without Since.Cursor's UIDVALIDITY in the box it is empty.
	Vanished []imap.UID
	// Permanent are the flags that can be stored here, keywords among them.
	Permanent Flags
	// AnyKeyword: new keywords can be made (\* in PERMANENTFLAGS).
	AnyKeyword bool
	// Err says why this box could not be read; the rest is then empty. ErrNoBox,
	// ErrNoAccess, ErrRefused.
	Err error
}

// Pick names messages of one box. The UIDs mean something only while the box has
// this UIDVALIDITY: where it has another, nothing is done and ErrReplaced returned.
type Pick struct {
	Box      string
	Validity uint32
	UIDs     []imap.UID // ascending
}

// Body is a message on its way out of a store.
type Body struct {
	Box  string
	UID  imap.UID
	Size int64 // exact length of Reader
	Date time.Time
	// Flags as they are at this moment, or nil where the server did not say.
	Flags Flags
	// Reader gives exactly Size bytes, or an error (ErrBadBody). It is valid until
	// the loop goes on; what is left unread is skipped.
	Reader io.Reader
	// Err: this message cannot be had (ErrGone, ErrBadBody, ErrReplaced). The
	// others still come.
	Err error
}

// Outgoing is a message on its way into a store.
type Outgoing struct {
	Box string
	// Validity, where not 0, must be the box's, else ErrReplaced.
	Validity uint32
	Flags    Flags
	Date     time.Time
	Size     int64
	Reader   io.Reader // exactly Size bytes
}

// Stored is what became of an Outgoing, or of one message of a Transfer.
type Stored struct {
	// UID and Validity are those of the new message (APPENDUID, COPYUID). UID 0
	// with nil Err: it was stored, its UID is not known; look it up by content.
	UID      imap.UID
	Validity uint32
	// Err nil: it was stored. A sentinel: it was not. Anything else: unknown.
	Err error
}

// Transfer copies or moves messages to another box of the same account.
type Transfer struct {
	From Pick
	To   string
	Move bool
}

// FlagChange adds and removes flags of messages.
type FlagChange struct {
	Pick
	Add, Remove Flags
	// UnchangedSince, where not 0 and the server can, leaves out messages that
	// changed after this modseq.
	UnchangedSince uint64
}

// Removal deletes messages for ever.
type Removal struct {
	Pick
	// UnchangedSince as in FlagChange: a message that somebody touched meanwhile stays.
	UnchangedSince uint64
}

// Outcome is what became of a FlagChange or a Removal.
type Outcome struct {
	// Modified were left alone because they changed meanwhile (RFC 7162, section 3.1.3).
	Modified []imap.UID
	// Missed, of a FlagChange, were not confirmed: they are gone, perhaps to another
	// folder, or had the flags already. Only a new look can tell.
	Missed []imap.UID
	// Marked have \Deleted, but cannot be expunged alone: the server has no UIDPLUS.
	Marked []imap.UID
	// Err: nil or a sentinel is certain and holds for all messages of it; anything else is unknown.
	Err error
}

// FolderOp is what a FolderChange does.
type FolderOp int

// The changes of folders.
const (
	// CreateFolder makes Name, with the special use Use where the server can, and
	// its parents. A \Noselect name of that name becomes selectable.
	CreateFolder FolderOp = iota + 1
	// RenameFolder gives Name and its children the name To.
	RenameFolder
	// DeleteFolder deletes Name if it is empty and has no children, else ErrNotEmpty.
	// It must not lose a message that arrives meanwhile: the box is renamed to a
	// hidden name, looked at, deleted, and renamed back where it is not empty.
	DeleteFolder
	// SubscribeFolder and UnsubscribeFolder change the subscription.
	SubscribeFolder
	UnsubscribeFolder
)

// FolderChange is one change of the folder tree.
type FolderChange struct {
	Op   FolderOp
	Name string
	To   string // RenameFolder
	Use  string // CreateFolder
}

// Reader looks at one side of an account.
//
// Both halves of a store are called by one goroutine, with one exception: while a
// Fetch of one store is ranged over, Append of the *other* store pulls from it.
// So there is at most one call at a time on a store, and none during its Fetch.
// Every call ends when ctx does, and soon when the server is dead. After an error
// the store may be used again; it reconnects by itself.
type Reader interface {
	// List gives all boxes with their cursors: one round trip on an open connection
	// to a server with LIST-STATUS. Repeatable.
	List(ctx context.Context) (Listing, error)
	// Changes gives one Delta a Since, in the same order, all boxes pipelined.
	// An error means that nothing is known. Repeatable.
	Changes(ctx context.Context, since []Since) ([]Delta, error)
	// Describe gives size, date, gid and content key of messages, one list a Pick,
	// ascending; what is gone is missing, a replaced box is empty. Repeatable.
	Describe(ctx context.Context, picks []Pick) ([][]Message, error)
	// Fetch streams whole messages, in the order of picks, without setting \Seen.
	// An error ends it; breaking off the loop is allowed and may cost the connection.
	Fetch(ctx context.Context, picks []Pick) iter.Seq2[Body, error]
}

// Writer changes one side of an account. Requests are independent of each other
// and may be pipelined; results come in the order of the requests. The error of a
// method means that what has no result yet is unknown: it may have happened.
type Writer interface {
	// Append stores messages as they come out of msgs, byte for byte, batched
	// (MULTIAPPEND of at most 50 messages or 4 MiB) and without waiting for answers
	// in between; done is called once a message, in order, from any goroutine but
	// never two at a time, and never after Append has returned. The store holds no
	// more of a body in memory than a fixed buffer. An error out of msgs ends it;
	// what was not completely sent is not stored.
	Append(ctx context.Context, msgs iter.Seq2[Outgoing, error], done func(n int, s Stored)) error
	// Transfer copies or moves inside the server: UID COPY, UID MOVE, or where the
	// server cannot move: copy, wait for its OK, and only then UID EXPUNGE of
	// exactly these UIDs. One list a request, one result a UID. A source that is
	// gone has ErrGone. Validity of From is verified before anything is changed.
	Transfer(ctx context.Context, ts []Transfer) ([][]Stored, error)
	// SetFlags applies changes as +FLAGS and -FLAGS. Gone messages are passed over, and
	// missed: whoever took one for changed would take it for changed back when it turns
	// up in another folder as it was.
	SetFlags(ctx context.Context, cs []FlagChange) ([]Outcome, error)
	// Expunge marks messages \Deleted (conditionally) and expunges exactly those,
	// never others' \Deleted ones. Validity is verified before anything is changed.
	// A gone message is done.
	Expunge(ctx context.Context, rs []Removal) ([]Outcome, error)
	// Folders applies changes in order; one error a change: nil, or ErrNoBox,
	// ErrBoxExists, ErrNotEmpty, ErrNoAccess, ErrNoName, ErrRefused; anything else is unknown.
	// Creating what exists is ErrBoxExists, deleting what does not is ErrNoBox.
	Folders(ctx context.Context, cs []FolderChange) ([]error, error)
}

// Store is one side of one account. Implementations and fakes pass storetest.Run.
type Store interface {
	Reader
	Writer
}

// Watcher is a Store that can wait: continuous mode uses it where it is there.
type Watcher interface {
	// Watch calls changed whenever something happened in the account; box is ""
	// where the server does not say which (NOTIFY, else IDLE on INBOX). It returns
	// when ctx ends (nil) or the connection does. No other call runs meanwhile.
	Watch(ctx context.Context, changed func(box string)) error
}
