//go:build soak

package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"understudy/imapsync"
	"understudy/integration/mailpair"
)

// deed is one thing that a person did to one message, known by its id.
type deed struct {
	kind       string // append, flag, delete, move, copy
	id         string
	side       imapsync.Side
	start, end time.Time
	// sure: the server confirmed it. Otherwise it may have happened.
	sure bool
	to   string // append, move, copy: the folder, see shelf
	flag string // lower case
	set  bool
	had  []string // append: the flags it came with
	uid  imap.UID
	note string
}

// people act on both sides at once, and keep the book of what they did.
type people struct {
	t *testing.T

	mu    sync.Mutex
	deeds []deed
	// busy are the messages somebody handles right now: two sessions that move one
	// message on one server at the same moment get two copies from the server itself.
	busy  [2]map[string]bool
	count int
}

func newPeople(t *testing.T) *people {
	t.Helper()
	return &people{t: t, busy: [2]map[string]bool{{}, {}}}
}

func (p *people) next() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	return p.count
}

func (p *people) record(d deed) {
	d.end = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deeds = append(p.deeds, d)
}

func (p *people) take(s imapsync.Side, id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy[s][id] {
		return false
	}
	p.busy[s][id] = true
	return true
}

func (p *people) leave(s imapsync.Side, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.busy[s], id)
}

// shelf is what a folder is called whatever it was renamed to: R1 of R1-r7.
func shelf(name string) string {
	name, _, _ = strings.Cut(name, "-r")
	return name
}

// person is one session.
type person struct {
	*people
	side imapsync.Side
	rnd  *rand.Rand
	c    *imapclient.Client
}

var chaosFlags = []imap.Flag{imap.FlagSeen, imap.FlagFlagged, imap.FlagAnswered, "$Work", "$Later"}

// act does random things until ctx ends, perSecond on average.
func (p *people) act(ctx context.Context, addr string, side imapsync.Side, seed uint64, perSecond float64) error {
	one := &person{people: p, side: side, rnd: rand.New(rand.NewPCG(seed, 7))}
	defer one.leaveServer()
	for ctx.Err() == nil {
		if one.c == nil {
			var err error
			if one.c, err = mailpair.Dial(p.t.Context(), addr, mailUser); err != nil {
				return err
			}
		}
		// Dovecot ends sessions whose folder is renamed under them ("session state is
		// inconsistent"); people log in again.
		if err := one.choose(); err != nil && !refused(err) {
			one.leaveServer()
		}
		pause(p.t, time.Duration(one.rnd.ExpFloat64()/perSecond*float64(time.Second)))
	}
	return nil
}

func (p *person) leaveServer() {
	if p.c != nil {
		_ = p.c.Close()
		p.c = nil
	}
}

// refused says that a server said NO: the folder or the message is not there any more.
func refused(err error) bool {
	var e *imap.Error
	return errors.As(err, &e) && e.Type == imap.StatusResponseTypeNo
}

// choose does one random thing.
func (p *person) choose() error {
	list, err := p.c.List("", "*", nil).Collect()
	if err != nil {
		return err
	}
	var shelves, targets, empties []string
	for _, b := range list {
		switch {
		case b.Mailbox == "INBOX", strings.HasPrefix(b.Mailbox, "F"):
			shelves, targets = append(shelves, b.Mailbox), append(targets, b.Mailbox)
		case strings.HasPrefix(b.Mailbox, "R"):
			targets = append(targets, b.Mailbox)
		case strings.HasPrefix(b.Mailbox, "E"):
			empties = append(empties, b.Mailbox)
		}
	}
	folder, to := shelves[p.rnd.IntN(len(shelves))], targets[p.rnd.IntN(len(targets))]
	switch n := p.rnd.IntN(100); {
	case n < 25:
		return p.append(to)
	case n < 28:
		return p.rename(to)
	case n < 31:
		return p.create()
	case n < 33 && len(empties) > 0:
		return p.c.Delete(empties[p.rnd.IntN(len(empties))]).Wait()
	}
	if _, err := p.c.Select(folder, nil).Wait(); err != nil {
		return err
	}
	m, err := p.message()
	if err != nil || m == nil {
		return err
	}
	id := m.id
	if !p.take(p.side, id) {
		return nil
	}
	defer p.leave(p.side, id)
	switch n := p.rnd.IntN(66); {
	case n < 32:
		return p.flag(m)
	case n < 42:
		return p.remove(m)
	case n < 46:
		return p.copy(m, to)
	}
	if to == folder {
		return p.flag(m)
	}
	return p.move(m, to)
}

// seen is a message of the open folder.
type seen struct {
	uid   imap.UID
	id    string
	flags []string
}

var idField = &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"X-Lab-Id"}, Peek: true}

// message picks one of the open folder; nil: there is none.
func (p *person) message() (*seen, error) {
	uids, err := p.c.UIDSearch(&imap.SearchCriteria{}, nil).Wait()
	if err != nil || len(uids.AllUIDs()) == 0 {
		return nil, err
	}
	all := uids.AllUIDs()
	uid := all[p.rnd.IntN(len(all))]
	got, err := p.c.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{UID: true, Flags: true, BodySection: []*imap.FetchItemBodySection{idField}}).Collect()
	if err != nil {
		return nil, err
	}
	for _, m := range got {
		id := mailpair.ID(m.FindBodySection(idField))
		if m.UID == uid && id != "" {
			return &seen{uid, id, mailpair.Flags(m.Flags)}, nil
		}
	}
	return nil, nil
}

func (p *person) append(folder string) error {
	id := fmt.Sprintf("new-%d", p.next())
	m := mailpair.NewMail(p.rnd, id, 400+p.rnd.IntN(2000))
	d := deed{kind: "append", id: id, side: p.side, start: time.Now(), to: shelf(folder)}
	var flags []imap.Flag
	for f := range strings.FieldsSeq(m.Flags) {
		flags = append(flags, imap.Flag(f))
	}
	d.had = mailpair.Flags(flags)
	cmd := p.c.Append(folder, int64(len(m.Body)), &imap.AppendOptions{Flags: flags, Time: m.Date})
	_, err := cmd.Write(m.Body)
	err = errors.Join(err, cmd.Close())
	if _, e := cmd.Wait(); err == nil {
		err = e
	}
	d.sure = err == nil
	if !refused(err) {
		p.record(d)
	}
	return err
}

func (p *person) rename(folder string) error {
	// Only folders that nobody has open: Dovecot gives what a session expunges while
	// its folder is renamed back ("expunged message reappeared").
	if !strings.HasPrefix(folder, "R") {
		return nil
	}
	return p.c.Rename(folder, fmt.Sprintf("%s-r%d", shelf(folder), p.next()), nil).Wait()
}

func (p *person) create() error {
	name := fmt.Sprintf("E%d", p.next())
	if err := p.c.Create(name, nil).Wait(); err != nil {
		return err
	}
	return p.c.Subscribe(name).Wait()
}

// store changes one flag; it is sure when the server showed the new flags.
func (p *person) store(m *seen, flag imap.Flag, set bool) (sure bool, err error) {
	op := imap.StoreFlagsDel
	if set {
		op = imap.StoreFlagsAdd
	}
	got, err := p.c.Store(imap.UIDSetNum(m.uid), &imap.StoreFlags{Op: op, Flags: []imap.Flag{flag}}, nil).Collect()
	for _, g := range got {
		has := slices.Contains(mailpair.Flags(g.Flags), strings.ToLower(string(flag)))
		sure = sure || g.UID == m.uid && has == set
	}
	return sure, err
}

func (p *person) flag(m *seen) error {
	flag := chaosFlags[p.rnd.IntN(len(chaosFlags))]
	name := strings.ToLower(string(flag))
	d := deed{kind: "flag", id: m.id, side: p.side, start: time.Now(), uid: m.uid, flag: name, set: !slices.Contains(m.flags, name)}
	sure, err := p.store(m, flag, d.set)
	d.sure = sure && err == nil
	p.record(d)
	return err
}

func (p *person) remove(m *seen) error {
	d := deed{kind: "delete", id: m.id, side: p.side, start: time.Now(), uid: m.uid}
	sure, err := p.store(m, imap.FlagDeleted, true)
	if err == nil {
		var gone []uint32
		gone, err = p.c.UIDExpunge(imap.UIDSetNum(m.uid)).Collect()
		d.note = fmt.Sprintf("%d expunged", len(gone))
	}
	// Whoever expunged it, it was marked: the synchroniser may have been faster.
	d.sure = sure && err == nil
	p.record(d)
	return err
}

func (p *person) copy(m *seen, to string) error {
	d := deed{kind: "copy", id: m.id, side: p.side, start: time.Now(), uid: m.uid, to: shelf(to)}
	res, err := p.c.Copy(imap.UIDSetNum(m.uid), to).Wait()
	d.sure = err == nil && len(res.DestUIDs) > 0
	if !refused(err) {
		p.record(d)
	}
	return err
}

func (p *person) move(m *seen, to string) error {
	d := deed{kind: "move", id: m.id, side: p.side, start: time.Now(), uid: m.uid, to: shelf(to)}
	res, err := p.c.Move(imap.UIDSetNum(m.uid), to).Wait()
	d.sure = err == nil && res.DestUIDs != nil
	if !refused(err) {
		p.record(d)
	}
	return err
}
