package simfs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"understudy/internal/durable" //nolint:depguard // simfs stands one floor above
)

var (
	// ErrCrashed is what every call returns once the power is cut.
	ErrCrashed = errors.New("simulated power cut")
	// ErrIO is a disk error.
	ErrIO = errors.New("simulated input/output error")
)

// Fault is what happens instead of an operation.
type Fault struct {
	// Err is returned; durable.ErrNoSpace or ErrIO for instance.
	Err error
	// Partly does half of it before: a short write, or a Sync that failed after
	// some pages reached the disk. A failed Sync always marks its pages clean, as
	// Linux does: syncing again reports success and writes nothing.
	Partly bool
}

// FS is a simulated file system; the zero value is not usable. All methods may be
// called concurrently.
type FS struct {
	mu       sync.Mutex
	names    map[string]*inode // as programs see them
	disk     map[string]*inode // as synced
	changes  []change          // unsynced, in order
	dirs     map[string]bool
	ops      int
	crashAt  int
	crashed  bool
	faults   map[int]Fault
	every    func(op int, what, name string) error
	reads    func(name string, off int64) error
	capacity int64
}

// change is an unsynced change of names: a new name, a removal, or a rename.
type change struct {
	from, to string // from is empty for a new name, to for a removal
	node     *inode
}

var _ durable.FS = (*FS)(nil)

// New returns an empty file system.
func New() *FS {
	return &FS{
		names: map[string]*inode{}, disk: map[string]*inode{},
		dirs: map[string]bool{"/": true, ".": true}, faults: map[int]Fault{},
	}
}

// CrashAt cuts the power in the n-th counted operation from the start; 0: never.
func (f *FS) CrashAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashAt = n
}

// Crash cuts the power now.
func (f *FS) Crash() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashed = true
}

// Crashed says whether the power is cut.
func (f *FS) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

// Ops is the number of operations that changed something, or tried to.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// FailAt makes the n-th counted operation fail.
func (f *FS) FailAt(n int, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[n] = fault
}

// FailWhen asks fn before every counted operation ("open", "write", "sync",
// "allocate", "truncate", "rename", "remove", "mkdir", "syncdir"); an error makes it
// fail. Nil switches it off. fn must not call the file system.
func (f *FS) FailWhen(fn func(op int, what, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.every = fn
}

// FailReads asks fn before every ReadAt. Nil switches it off.
func (f *FS) FailReads(fn func(name string, off int64) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads = fn
}

// SetCapacity bounds the sum of all file lengths; 0: unbounded.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// UsedBytes is the sum of all file lengths.
func (f *FS) UsedBytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used()
}

func (f *FS) used() int64 {
	n := int64(0)
	for _, node := range f.names {
		n += int64(len(node.data))
	}
	return n
}

// room says whether a file may grow by that many bytes.
func (f *FS) room(grow int64) error {
	if f.capacity > 0 && grow > 0 && f.used()+grow > f.capacity {
		return durable.ErrNoSpace
	}
	return nil
}

// begin counts an operation; f.mu is held. partly: do half of it, then fail.
func (f *FS) begin(what, name string) (partly bool, err error) {
	if f.crashed {
		return false, &fs.PathError{Op: what, Path: name, Err: ErrCrashed}
	}
	f.ops++
	if f.ops == f.crashAt {
		f.crashed = true
		return true, &fs.PathError{Op: what, Path: name, Err: ErrCrashed}
	}
	if fault, ok := f.faults[f.ops]; ok {
		return fault.Partly, &fs.PathError{Op: what, Path: name, Err: fault.Err}
	}
	if f.every != nil {
		if err := f.every(f.ops, what, name); err != nil {
			return false, &fs.PathError{Op: what, Path: name, Err: err}
		}
	}
	return false, nil
}

// OpenFile is durable.FS.
func (f *FS) OpenFile(name string, flag int, _ fs.FileMode) (durable.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = filepath.Clean(name)
	node, exists := f.names[name]
	if f.crashed {
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrCrashed}
	}
	switch {
	case !exists && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case exists && flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case !f.dirs[filepath.Dir(name)]:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if !exists || flag&os.O_TRUNC != 0 {
		if _, err := f.begin("open", name); err != nil {
			return nil, err
		}
	}
	if !exists {
		node = newInode()
		f.names[name] = node
		f.changes = append(f.changes, change{to: name, node: node})
	} else if flag&os.O_TRUNC != 0 {
		node.resize(0)
	}
	return &file{fsys: f, node: node, name: name, readOnly: flag&(os.O_RDWR|os.O_WRONLY) == 0}, nil
}

// Rename is durable.FS.
func (f *FS) Rename(oldName, newName string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	oldName, newName = filepath.Clean(oldName), filepath.Clean(newName)
	if _, err := f.begin("rename", oldName); err != nil {
		return err
	}
	node, ok := f.names[oldName]
	if !ok {
		return &fs.PathError{Op: "rename", Path: oldName, Err: fs.ErrNotExist}
	}
	delete(f.names, oldName)
	f.names[newName] = node
	f.changes = append(f.changes, change{from: oldName, to: newName, node: node})
	return nil
}

// Remove is durable.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = filepath.Clean(name)
	if _, err := f.begin("remove", name); err != nil {
		return err
	}
	if _, ok := f.names[name]; !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	delete(f.names, name)
	f.changes = append(f.changes, change{from: name})
	return nil
}

// ReadDir is durable.FS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = filepath.Clean(name)
	if f.crashed {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: ErrCrashed}
	}
	if !f.dirs[name] {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var entries []fs.DirEntry
	for path, node := range f.names {
		if filepath.Dir(path) == name {
			entries = append(entries, fs.FileInfoToDirEntry(info{name: filepath.Base(path), size: int64(len(node.data))}))
		}
	}
	for path := range f.dirs {
		if path != name && filepath.Dir(path) == name {
			entries = append(entries, fs.FileInfoToDirEntry(info{name: filepath.Base(path), dir: true}))
		}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// MkdirAll is durable.FS.
func (f *FS) MkdirAll(name string, _ fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = filepath.Clean(name)
	if f.crashed {
		return &fs.PathError{Op: "mkdir", Path: name, Err: ErrCrashed}
	}
	if f.dirs[name] {
		return nil
	}
	if _, err := f.begin("mkdir", name); err != nil {
		return err
	}
	for ; !f.dirs[name]; name = filepath.Dir(name) {
		f.dirs[name] = true
	}
	return nil
}

// SyncDir is durable.FS.
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = filepath.Clean(name)
	if _, err := f.begin("syncdir", name); err != nil {
		return err
	}
	rest := f.changes[:0]
	for _, c := range f.changes {
		if filepath.Dir(cmp.Or(c.to, c.from)) == name {
			c.apply(f.disk)
		} else {
			rest = append(rest, c)
		}
	}
	f.changes = rest
	return nil
}

func (c change) apply(names map[string]*inode) {
	if c.from != "" {
		delete(names, c.from)
	}
	if c.to != "" {
		names[c.to] = c.node
	}
}

// WriteRaw changes bytes behind everybody's back: rot. It is not counted.
func (f *FS) WriteRaw(name string, off int64, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	node, ok := f.names[filepath.Clean(name)]
	if !ok || off+int64(len(p)) > int64(len(node.data)) {
		return fmt.Errorf("write raw %s: %w", name, fs.ErrNotExist)
	}
	copy(node.data[off:], p)
	if off < int64(len(node.disk)) {
		copy(node.disk[off:], p)
	}
	return nil
}

// Restart returns what is found after a power cut: everything synced, and of the
// rest a part chosen by seed. f is not changed, so that one cut has many outcomes.
func (f *FS) Restart(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	rng := newRand(seed)
	next := New()
	maps.Copy(next.dirs, f.dirs)
	next.capacity = f.capacity
	names := maps.Clone(f.disk)
	for _, c := range f.changes {
		if rng.IntN(2) == 0 {
			c.apply(names)
		}
	}
	next.adopt(names, func(n *inode) []byte { return n.survivor(rng) })
	return next
}

// Clone returns a copy with everything in it, synced: what is found after the
// process was killed and the machine went on.
func (f *FS) Clone() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := New()
	maps.Copy(next.dirs, f.dirs)
	next.capacity = f.capacity
	next.adopt(f.names, func(n *inode) []byte { return slices.Clone(n.data) })
	return next
}

// adopt fills an empty file system, in the order of names, so that a seed always
// means the same.
func (f *FS) adopt(names map[string]*inode, content func(*inode) []byte) {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		data := content(names[name])
		node := newInode()
		node.data, node.disk = data, slices.Clone(data)
		f.names[name], f.disk[name] = node, node
	}
}

// info is a fs.FileInfo.
type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.dir }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
