// Package bans keeps the networks that may not connect, the same at both sites:
// one site's firewall cannot stop a client that enters at the other.
//
// Every entry carries the time of its last change; of two versions the later one
// wins, and an unban is an entry too, kept for a while. So lists can be merged in
// any order, any number of times, and both sites end with the same one.
//
//	list, err := bans.Open(filepath.Join(dataDir, "bans.json"), bans.Deps{})
//	err = list.Ban(netip.MustParsePrefix("192.0.2.0/24"), time.Hour, "brute force")
//	list.Banned(client)
package bans

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/internal/durable"
)

// Bounds.
const (
	// MaxEntries bounds the list: what is added beyond is refused.
	MaxEntries = 10_000
	// keepRemoved is how long an unban, or a ban that has run out, is remembered: a
	// site that was away for longer may bring the ban back.
	keepRemoved = 7 * 24 * time.Hour
	maxFile     = 8 << 20
)

// What an operator may not do. Test with errors.Is.
var (
	// ErrFull: the list has MaxEntries.
	ErrFull = errors.New("bans: the list is full")
	// ErrTooWide: the network is larger than a ban may be.
	ErrTooWide = errors.New("bans: network is too large")
	// ErrNotBanned: there is nothing to lift.
	ErrNotBanned = errors.New("bans: not banned")
)

// The widest networks that can be banned: an operator's slip must not shut out
// the world.
const (
	widest4 = 8
	widest6 = 16
)

// Entry is one network.
type Entry struct {
	Network netip.Prefix `json:"network"`
	// Until is when the ban ends; zero is never.
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
	// Site is where it was said, Changed when.
	Site    string    `json:"site"`
	Changed time.Time `json:"changed"`
	// Removed: the ban was lifted.
	Removed bool `json:"removed,omitempty"`
}

// in force at a time.
func (e *Entry) holds(now time.Time) bool {
	return !e.Removed && (e.Until.IsZero() || now.Before(e.Until))
}

// later says that e replaces old. Equal times are decided by the content, so that
// both sites decide alike.
func (e *Entry) later(old *Entry) bool {
	if c := e.Changed.Compare(old.Changed); c != 0 {
		return c > 0
	}
	a, errA := json.Marshal(e)
	b, errB := json.Marshal(old)
	return errA == nil && errB == nil && string(a) > string(b)
}

// Deps are what a List needs from outside; all may be zero.
type Deps struct {
	// Site is this site's name.
	Site string
	// FS is the file system; nil is the machine's.
	FS durable.FS
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Changed is told of every change made here, to pass it on; it must not block.
	Changed    func()
	Registerer prometheus.Registerer
}

// List is the bans of both sites. Its methods may be called concurrently.
type List struct {
	file string
	deps Deps

	mu      sync.RWMutex
	entries map[netip.Prefix]Entry
	lengths [2][]int // prefix lengths in use, for IPv4 and IPv6
	writing sync.Mutex
}

// Open reads the list; a missing file is an empty one.
func Open(file string, deps Deps) (*List, error) {
	if deps.FS == nil {
		deps.FS = durable.OS()
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	l := &List{file: file, deps: deps, entries: map[netip.Prefix]Entry{}}
	data, err := durable.ReadFile(deps.FS, file, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read bans: %w", err)
	default:
		var list []Entry
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("read bans: %s: %w", file, err)
		}
		for _, e := range list {
			l.entries[e.Network] = e
		}
	}
	l.index()
	if deps.Registerer != nil {
		deps.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "understudy_bans", Help: "Networks that may not connect.",
		}, func() float64 { return float64(len(l.List())) }))
	}
	return l, nil
}

// index notes the prefix lengths in use; the caller holds mu.
func (l *List) index() {
	var seen [2]map[int]bool
	l.lengths = [2][]int{}
	for p := range l.entries {
		f := family(p.Addr())
		if seen[f] == nil {
			seen[f] = map[int]bool{}
		}
		if !seen[f][p.Bits()] {
			seen[f][p.Bits()] = true
			l.lengths[f] = append(l.lengths[f], p.Bits())
		}
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Banned says whether a client may not connect.
func (l *List) Banned(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.entries) == 0 {
		return false
	}
	now := l.deps.Now()
	for _, bits := range l.lengths[family(a)] {
		p, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if e, ok := l.entries[p]; ok && e.holds(now) {
			return true
		}
	}
	return false
}

// Ban shuts a network out, for a time or, with 0, until it is lifted. Nil
// promises that it is in force here and will outlive a restart; the other site
// follows when it can be reached.
func (l *List) Ban(p netip.Prefix, d time.Duration, reason string) error {
	p = normal(p)
	switch {
	case !p.IsValid():
		return fmt.Errorf("%w: invalid", ErrTooWide)
	case p.Addr().Is4() && p.Bits() < widest4, p.Addr().Is6() && p.Bits() < widest6:
		return fmt.Errorf("%w: %s; at most /%d, or /%d of IPv6", ErrTooWide, p, widest4, widest6)
	}
	now := l.deps.Now()
	e := Entry{Network: p, Reason: reason, Site: l.deps.Site, Changed: now.UTC().Round(0)}
	if d > 0 {
		e.Until = e.Changed.Add(d)
	}
	return l.change(e)
}

// Unban lifts the ban of exactly this network.
func (l *List) Unban(p netip.Prefix) error {
	p = normal(p)
	now := l.deps.Now()
	l.mu.RLock()
	e, ok := l.entries[p]
	l.mu.RUnlock()
	if !ok || !e.holds(now) {
		return fmt.Errorf("%w: %s", ErrNotBanned, p)
	}
	return l.change(Entry{Network: p, Site: l.deps.Site, Changed: now.UTC().Round(0), Removed: true})
}

// normal is the form in which networks are compared.
func normal(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return netip.PrefixFrom(p.Addr().WithZone(""), p.Bits()).Masked()
}

// change puts one entry in force, and on disk.
func (l *List) change(e Entry) error {
	l.mu.Lock()
	if old, ok := l.entries[e.Network]; ok {
		if !e.Changed.After(old.Changed) { // the clock went back, or the other site's is ahead
			e.Changed = old.Changed.Add(time.Nanosecond)
		}
	} else if len(l.entries) >= MaxEntries {
		l.mu.Unlock()
		return fmt.Errorf("%w: %d networks", ErrFull, MaxEntries)
	}
	l.entries[e.Network] = e
	l.index()
	l.mu.Unlock()
	err := l.save()
	if l.deps.Changed != nil {
		l.deps.Changed()
	}
	return err
}

// save writes the list; what is long over is left out.
func (l *List) save() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	now := l.deps.Now()
	maps.DeleteFunc(l.entries, func(_ netip.Prefix, e Entry) bool {
		over := e.Changed
		if !e.Removed {
			over = e.Until
		}
		return !e.holds(now) && now.Sub(over) > keepRemoved
	})
	l.index()
	l.mu.Unlock()
	data, err := json.Marshal(l.All())
	if err != nil {
		return fmt.Errorf("write bans: %w", err)
	}
	if err := durable.WriteFile(l.deps.FS, l.file, 0o640, data); err != nil {
		return fmt.Errorf("write bans: %w", err)
	}
	return nil
}

// All is every entry, those that are lifted included, for the other site.
func (l *List) All() []Entry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := slices.Collect(maps.Values(l.entries))
	slices.SortFunc(out, func(a, b Entry) int { return a.Network.Compare(b.Network) })
	return out
}

// List is what is in force.
func (l *List) List() []Entry {
	now := l.deps.Now()
	return slices.DeleteFunc(l.All(), func(e Entry) bool { return !e.holds(now) })
}

// Merge takes the other site's entries. It says whether any was new.
func (l *List) Merge(list []Entry) (changed bool, err error) {
	l.mu.Lock()
	for _, e := range list {
		if e.Network != normal(e.Network) || e.Changed.IsZero() {
			continue
		}
		old, ok := l.entries[e.Network]
		if ok && !e.later(&old) || !ok && len(l.entries) >= MaxEntries {
			continue
		}
		l.entries[e.Network] = e
		changed = true
	}
	if changed {
		l.index()
	}
	l.mu.Unlock()
	if !changed {
		return false, nil
	}
	return true, l.save()
}
