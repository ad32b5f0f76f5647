package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
)

// Features are what a server lacks. The zero value has everything.
type Features struct {
	NoCondstore bool // no MODSEQ: every pass reads everything
	NoUIDPlus   bool // no UIDs come back, and single messages cannot be expunged
	NoGID       bool // no X-GUID or EMAILID
	NoKeywords  bool // PERMANENTFLAGS has the system flags only
	NoMailboxID bool
	LimitBytes  int64 // APPENDLIMIT as announced
	MaxBytes    int64 // what it really takes; 0: anything
	QuotaBytes  int64 // 0: none
	FirstValid  uint32
}

// Message is a message of a Server.
type Message struct {
	UID    imap.UID
	Flags  imapsync.Flags
	Date   time.Time
	Body   string
	GID    string
	ModSeq uint64
}

type box struct {
	id         string
	validity   uint32
	next       imap.UID
	modseq     uint64
	subscribed bool
	use        string
	noselect   bool
	foreign    bool
	msgs       []*Message
}

// ErrCut is what a call returns that Server.Cut has cut.
var ErrCut = errors.New("connection cut")

// Server is an account in memory. Its methods are those of other mail programs; the
// synchroniser uses Store.
type Server struct {
	// Cut, where not nil, is asked at the beginning of every call of the Store, and
	// again before its result is given (after its effect); true cuts the connection.
	Cut func(op string, after bool) bool
	// Before, where not nil, runs before a call of the Store: another program acts
	// in the middle of a pass.
	Before func(op string)
	// Unlisted, where not nil, names boxes that a listing leaves out: a session whose
	// view of the tree is old. All other calls see them.
	Unlisted func(name string) bool
	// Unreadable, where not nil, is why Changes cannot read a box.
	Unreadable func(name string) error

	mu       sync.Mutex
	features Features
	boxes    map[string]*box
	validity uint32
	gid      int
	used     int64
	calls    map[string]int
	bytes    int64
}

// NewServer has an empty INBOX.
func NewServer(f Features) *Server {
	if f.FirstValid == 0 {
		f.FirstValid = 1000
	}
	s := &Server{features: f, boxes: make(map[string]*box), validity: f.FirstValid, calls: make(map[string]int)}
	s.create("INBOX", "")
	return s
}

// create makes a box and its parents; the caller holds mu or has the only reference.
func (s *Server) create(name, use string) *box {
	s.validity++
	b := &box{validity: s.validity, next: 1, modseq: 1, use: use}
	if !s.features.NoMailboxID {
		b.id = fmt.Sprintf("M%d", s.validity)
	}
	s.boxes[name] = b
	return b
}

// Create makes a folder.
func (s *Server) Create(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.boxes[name]; b != nil && !b.noselect {
		return false
	}
	s.create(name, "")
	return true
}

// CreateUse makes a folder with a special use.
func (s *Server) CreateUse(name, use string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.create(name, use)
}

// Append delivers a message.
func (s *Server) Append(name, body string, date time.Time, flags ...imap.Flag) imap.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[name]
	if b == nil {
		return 0
	}
	s.gid++
	return s.add(b, &Message{Flags: imapsync.NewFlags(flags...), Date: date, Body: body, GID: fmt.Sprintf("G%d-%d", s.features.FirstValid, s.gid)})
}

func (s *Server) add(b *box, m *Message) imap.UID {
	m.UID = b.next
	b.next++
	b.modseq++
	m.ModSeq = b.modseq
	m.Flags = s.storable(m.Flags)
	b.msgs = append(b.msgs, m)
	s.used += int64(len(m.Body))
	return m.UID
}

func (s *Server) storable(f imapsync.Flags) imapsync.Flags {
	if s.features.NoKeywords {
		return f.And(systemFlags())
	}
	return f
}

func systemFlags() imapsync.Flags {
	return imapsync.NewFlags(imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft)
}

func (b *box) find(u imap.UID) *Message {
	i, ok := slices.BinarySearchFunc(b.msgs, u, func(m *Message, u imap.UID) int { return int(int64(m.UID) - int64(u)) })
	if !ok {
		return nil
	}
	return b.msgs[i]
}

func (s *Server) remove(b *box, u imap.UID) *Message {
	m := b.find(u)
	if m == nil {
		return nil
	}
	b.msgs = slices.DeleteFunc(b.msgs, func(x *Message) bool { return x == m })
	b.modseq++
	s.used -= int64(len(m.Body))
	return m
}

// Flag adds and removes flags.
func (s *Server) Flag(name string, u imap.UID, add, remove imapsync.Flags) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[name]
	if b == nil {
		return false
	}
	m := b.find(u)
	if m == nil {
		return false
	}
	s.setFlags(b, m, add, remove)
	return true
}

func (s *Server) setFlags(b *box, m *Message, add, remove imapsync.Flags) {
	now := m.Flags.Union(s.storable(add)).Minus(remove)
	if now.Equal(m.Flags) {
		return
	}
	m.Flags = now
	b.modseq++
	m.ModSeq = b.modseq
}

// Move moves a message to another folder; it returns its new UID.
func (s *Server) Move(from string, u imap.UID, to string) imap.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	src, dst := s.boxes[from], s.boxes[to]
	if src == nil || dst == nil {
		return 0
	}
	m := s.remove(src, u)
	if m == nil {
		return 0
	}
	c := *m
	return s.add(dst, &c)
}

// Copy copies a message to another folder.
func (s *Server) Copy(from string, u imap.UID, to string) imap.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	src, dst := s.boxes[from], s.boxes[to]
	if src == nil || dst == nil {
		return 0
	}
	m := src.find(u)
	if m == nil {
		return 0
	}
	c := *m
	return s.add(dst, &c)
}

// Delete expunges a message.
func (s *Server) Delete(name string, u imap.UID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[name]
	return b != nil && s.remove(b, u) != nil
}

// Rename renames a folder and its children.
func (s *Server) Rename(from, to string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rename(from, to) == nil
}

func (s *Server) rename(from, to string) error {
	if s.boxes[from] == nil || from == "INBOX" {
		return imapsync.ErrNoBox
	}
	if b := s.boxes[to]; b != nil || strings.HasPrefix(to, from+"/") {
		return imapsync.ErrBoxExists
	}
	for _, name := range slices.Collect(maps.Keys(s.boxes)) {
		if rest, below := strings.CutPrefix(name, from); below && (rest == "" || rest[0] == '/') {
			s.boxes[to+rest] = s.boxes[name]
			delete(s.boxes, name)
		}
	}
	return nil
}

// Remove deletes a folder with its messages.
func (s *Server) Remove(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[name]
	if b == nil || name == "INBOX" {
		return false
	}
	for _, m := range b.msgs {
		s.used -= int64(len(m.Body))
	}
	delete(s.boxes, name)
	return true
}

// Subscribe changes a subscription.
func (s *Server) Subscribe(name string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.boxes[name]; b != nil {
		b.subscribed = on
	}
}

// Renumber gives a folder a new UIDVALIDITY and new UIDs, as a rebuilt index does.
func (s *Server) Renumber(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[name]
	s.validity += 100
	b.validity, b.next = s.validity, 1
	for _, m := range b.msgs {
		m.UID = b.next
		b.next++
	}
}

// SetValidity is for folders that two sides share by accident.
func (s *Server) SetValidity(name string, v uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boxes[name].validity = v
}

// SetForeign puts a folder into the shared namespace.
func (s *Server) SetForeign(name string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boxes[name].foreign = on
}

// SetQuota changes the quota.
func (s *Server) SetQuota(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.features.QuotaBytes = n
}

// Snapshot is a backup.
type Snapshot struct{ boxes map[string]*box }

// Backup copies everything.
func (s *Server) Backup() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Snapshot{clone(s.boxes)}
}

// Restore puts a backup back.
func (s *Server) Restore(b Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boxes = clone(b.boxes)
}

// RestoreFolder puts one folder of a backup back.
func (s *Server) RestoreFolder(b Snapshot, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boxes[name] = clone(b.boxes)[name]
}

func clone(in map[string]*box) map[string]*box {
	out := make(map[string]*box)
	for name, b := range in {
		c := *b
		c.msgs = nil
		for _, m := range b.msgs {
			mc := *m
			c.msgs = append(c.msgs, &mc)
		}
		out[name] = &c
	}
	return out
}

// Messages lists a folder.
func (s *Server) Messages(name string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Message
	if b := s.boxes[name]; b != nil {
		for _, m := range b.msgs {
			out = append(out, *m)
		}
	}
	return out
}

// Folders lists the folders of people, in order.
func (s *Server) Folders() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for name := range s.boxes {
		if !strings.HasPrefix(name, imapsync.HiddenPrefix) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Subscribed says whether a folder is.
func (s *Server) Subscribed(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.boxes[name] != nil && s.boxes[name].subscribed
}

// Use is the special use of a folder.
func (s *Server) Use(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.boxes[name]; b != nil {
		return b.use
	}
	return ""
}

// Calls counts calls of the Store by name, and forgets them.
func (s *Server) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.calls
	s.calls = make(map[string]int)
	return out
}

// BodyBytes counts what went through Fetch and Append, and forgets it.
func (s *Server) BodyBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.bytes
	s.bytes = 0
	return n
}

// Store is the synchroniser's view.
func (s *Server) Store() imapsync.Store { return &store{s} }

// enter begins a call: the lock is held when it returns nil.
func (s *Server) enter(ctx context.Context, op string) error {
	if s.Before != nil {
		s.Before(op)
	}
	s.mu.Lock()
	s.calls[op]++
	s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.Cut != nil && s.Cut(op, false) {
		return ErrCut
	}
	s.mu.Lock()
	return nil
}

// leave ends it.
func (s *Server) leave(op string) error {
	s.mu.Unlock()
	if s.Cut != nil && s.Cut(op, true) {
		return ErrCut
	}
	return nil
}
