package powercut

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
)

// pageBytes is the unit in which a disk loses data.
const pageBytes = 4096

// Disk is the model of a disk. Its methods may be called concurrently.
type Disk struct {
	mu   sync.Mutex
	root *inode
	next uint64
	dead bool
	// syncs counts the syncs of files and directories that had something to do.
	syncs int
}

// inode is a file or a directory. Disk.mu guards it.
type inode struct {
	number uint64
	mode   uint32
	links  int

	// live is what processes read; durable is what a cut leaves. dirty holds the
	// pages of live that durable does not have. Both grow without their new
	// pages being dirty: they are zero.
	live, durable []byte
	dirty         map[int]struct{}

	// entries and its durable twin make the inode a directory; changes lists what
	// happened to entries since the last sync, oldest first.
	entries, durableEntries map[string]*inode
	changes                 []change
}

// change is one atomic step of a directory: some names get an inode, or lose it (nil).
type change map[string]*inode

// NewDisk makes an empty disk.
func NewDisk() *Disk {
	d := &Disk{}
	d.root = d.newDir(0o755)
	return d
}

func (d *Disk) newDir(mode uint32) *inode {
	d.next++
	return &inode{
		number: d.next, mode: syscall.S_IFDIR | mode&0o7777, links: 2,
		entries: map[string]*inode{}, durableEntries: map[string]*inode{},
	}
}

func (d *Disk) newFile(mode uint32) *inode {
	d.next++
	return &inode{number: d.next, mode: syscall.S_IFREG | mode&0o7777, links: 1, dirty: map[int]struct{}{}}
}

func (n *inode) isDir() bool { return n.entries != nil }

// Syncs is how many syncs had something to do so far.
func (d *Disk) Syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

// Cut is the power cut. Of what was not synced, each dirty page survives with
// probability keep, and of each directory's changes a random number, oldest
// first, or with keep 0 none. Until the next Mount everything answers EIO.
func (d *Disk) Cut(rnd *rand.Rand, keep float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	d.root.cut(rnd, keep, map[*inode]bool{})
}

func (n *inode) cut(rnd *rand.Rand, keep float64, seen map[*inode]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	if !n.isDir() {
		for _, page := range slices.Sorted(maps.Keys(n.dirty)) {
			if keep > 0 && rnd.Float64() < keep {
				n.store(page)
			}
		}
		n.live = slices.Clone(n.durable)
		clear(n.dirty)
		return
	}
	survivors := 0
	if keep > 0 {
		survivors = rnd.IntN(len(n.changes) + 1)
	}
	n.apply(n.changes[:survivors])
	n.entries = maps.Clone(n.durableEntries)
	n.changes = nil
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		n.entries[name].cut(rnd, keep, seen)
	}
}

func (n *inode) apply(changes []change) {
	for _, c := range changes {
		for name, to := range c {
			if to == nil {
				delete(n.durableEntries, name)
			} else {
				n.durableEntries[name] = to
			}
		}
	}
}

// store copies one page to the durable twin.
func (n *inode) store(page int) {
	from := page * pageBytes
	to := min(from+pageBytes, len(n.live))
	if from >= to {
		return
	}
	if len(n.durable) < to {
		n.durable = resize(n.durable, to)
	}
	copy(n.durable[from:to], n.live[from:to])
}

// sync makes a file or directory durable.
func (d *Disk) sync(n *inode) {
	if n.isDir() {
		if len(n.changes) > 0 {
			d.syncs++
		}
		n.apply(n.changes)
		n.changes = nil
		return
	}
	if len(n.dirty) > 0 || len(n.live) != len(n.durable) {
		d.syncs++
	}
	n.durable = resize(n.durable, len(n.live))
	for page := range n.dirty {
		n.store(page)
	}
	clear(n.dirty)
}

// enter records a change of a directory's entries.
func (n *inode) enter(c change) {
	for name, to := range c {
		if to == nil {
			delete(n.entries, name)
		} else {
			n.entries[name] = to
		}
	}
	n.changes = append(n.changes, c)
}

func (n *inode) write(data []byte, offset int64) {
	end := int(offset) + len(data)
	if end > len(n.live) {
		n.live = resize(n.live, end)
	}
	copy(n.live[offset:end], data)
	n.touch(int(offset), end)
}

func (n *inode) touch(from, to int) {
	if from >= to {
		return
	}
	for page := from / pageBytes; page <= (to-1)/pageBytes; page++ {
		n.dirty[page] = struct{}{}
	}
}

// truncate sets a file's size. What is cut off and grows back is zero.
func (n *inode) truncate(size int) {
	old := len(n.live)
	n.live = resize(n.live, size)
	if size < old {
		// The durable twin still has the old bytes: should the file grow again,
		// these pages differ from it.
		n.touch(size, min(old, len(n.durable)))
	}
}

// punch zeroes a range within a file's size.
func (n *inode) punch(from, length int) {
	to := min(from+length, len(n.live))
	if from >= to {
		return
	}
	clear(n.live[from:to])
	n.touch(from, to)
}

// resize returns b with the given length; new bytes are zero. Growing room is
// doubled, so that appends stay cheap; shrinking forgets what was cut off.
func resize(b []byte, size int) []byte {
	switch {
	case size < len(b):
		clear(b[size:])
		return b[:size]
	case size <= cap(b):
		return b[:size]
	}
	grown := make([]byte, size, max(size, min(2*cap(b), size+(8<<20))))
	copy(grown, b)
	return grown
}
