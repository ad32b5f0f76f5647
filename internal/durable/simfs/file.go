package simfs

import (
	"io"
	"io/fs"
	"math/rand/v2"

	"understudy/internal/durable" //nolint:depguard // simfs stands one floor above
)

const (
	pageBytes   = 4096
	sectorBytes = 512
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x5eed)) } //nolint:gosec // repeatable by design

// inode is the content of a file: as programs see it, and as the disk has it.
type inode struct {
	data, disk []byte
	dirty      map[int64]bool // pages of data that no sync has taken
	resized    bool           // the length is not synced
}

func newInode() *inode { return &inode{dirty: map[int64]bool{}} }

func (n *inode) resize(size int64) {
	if size == int64(len(n.data)) {
		return
	}
	n.resized = true
	if size < int64(len(n.data)) {
		clear(n.data[size:])
		n.data = n.data[:size]
		return
	}
	n.data = append(n.data, make([]byte, size-int64(len(n.data)))...)
}

func (n *inode) write(p []byte, off int64) {
	if end := off + int64(len(p)); end > int64(len(n.data)) {
		n.resize(end)
	}
	copy(n.data[off:], p)
	for page := off / pageBytes; page*pageBytes < off+int64(len(p)); page++ {
		n.dirty[page] = true
	}
}

// flush takes dirty pages to the disk where keep says so, and marks all clean.
func (n *inode) flush(keep func() bool) {
	size := len(n.disk)
	if n.resized && keep() {
		size = len(n.data)
	}
	n.disk = n.content(size, func(int64) []byte {
		if keep() {
			return n.data
		}
		return nil
	})
	n.resized = false
	clear(n.dirty)
}

// content builds a disk content of size bytes; source chooses for every dirty
// page (or nil for the old content).
func (n *inode) content(size int, source func(page int64) []byte) []byte {
	out := make([]byte, size)
	copy(out, n.disk)
	for page := int64(0); page*pageBytes < int64(size); page++ { // in order: repeatable
		if !n.dirty[page] {
			continue
		}
		from := source(page)
		lo, hi := page*pageBytes, min((page+1)*pageBytes, int64(size), int64(len(from)))
		if lo < hi {
			copy(out[lo:hi], from[lo:hi])
		}
	}
	return out
}

// survivor is what a power cut leaves.
func (n *inode) survivor(rng *rand.Rand) []byte {
	size := len(n.disk)
	if n.resized && rng.IntN(2) == 0 {
		size = len(n.data)
	}
	mode := rng.IntN(4) // nothing, everything, or a mixture of the unsynced pages
	return n.content(size, func(page int64) []byte {
		choice := rng.IntN(3)
		switch {
		case mode == 0, mode > 1 && choice == 0:
			return nil
		case mode == 1, choice == 1:
			return n.data
		}
		return n.torn(rng, page)
	})
}

// torn mixes old and new sectors in a page.
func (n *inode) torn(rng *rand.Rand, page int64) []byte {
	mixed := make([]byte, len(n.data))
	copy(mixed, n.disk)
	for s := page * pageBytes; s < min((page+1)*pageBytes, int64(len(n.data))); s += sectorBytes {
		if rng.IntN(2) == 0 {
			end := min(s+sectorBytes, int64(len(n.data)))
			copy(mixed[s:end], n.data[s:end])
		}
	}
	return mixed
}

// file is an open file.
type file struct {
	fsys     *FS
	node     *inode
	name     string
	readOnly bool
	closed   bool
}

var _ durable.File = (*file)(nil)

func (h *file) usable(op string) error {
	switch {
	case h.closed:
		return &fs.PathError{Op: op, Path: h.name, Err: fs.ErrClosed}
	case h.fsys.crashed:
		return &fs.PathError{Op: op, Path: h.name, Err: ErrCrashed}
	}
	return nil
}

// change begins an operation that needs a writable file.
func (h *file) change(op string) (partly bool, err error) {
	if err := h.usable(op); err != nil {
		return false, err
	}
	if h.readOnly {
		return false, &fs.PathError{Op: op, Path: h.name, Err: fs.ErrPermission}
	}
	return h.fsys.begin(op, h.name)
}

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	h.fsys.mu.Lock()
	defer h.fsys.mu.Unlock()
	if err := h.usable("read"); err != nil {
		return 0, err
	}
	if h.fsys.reads != nil {
		if err := h.fsys.reads(h.name, off); err != nil {
			return 0, &fs.PathError{Op: "read", Path: h.name, Err: err}
		}
	}
	if off >= int64(len(h.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) WriteAt(p []byte, off int64) (int, error) {
	h.fsys.mu.Lock()
	defer h.fsys.mu.Unlock()
	partly, err := h.change("write")
	if err == nil {
		if err = h.fsys.room(off + int64(len(p)) - int64(len(h.node.data))); err != nil {
			return 0, &fs.PathError{Op: "write", Path: h.name, Err: err}
		}
		h.node.write(p, off)
		return len(p), nil
	}
	if partly {
		p = p[:len(p)/2]
		h.node.write(p, off)
		return len(p), err
	}
	return 0, err
}

func (h *file) Sync() error {
	h.fsys.mu.Lock()
	defer h.fsys.mu.Unlock()
	partly, err := h.change("sync")
	switch {
	case h.fsys.crashed, h.closed, h.readOnly:
	case err == nil:
		h.node.flush(func() bool { return true })
	default:
		rng := newRand(uint64(h.fsys.ops)) //nolint:gosec // a count
		h.node.flush(func() bool { return partly && rng.IntN(2) == 0 })
	}
	return err
}

func (h *file) Allocate(size int64) error {
	h.fsys.mu.Lock()
	defer h.fsys.mu.Unlock()
	partly, err := h.change("allocate")
	have := int64(len(h.node.data))
	if err == nil {
		if err = h.fsys.room(size - have); err == nil {
			h.node.resize(max(size, have))
		}
	} else if partly {
		h.node.resize(max(size/2, have))
	}
	return err
}

func (h *file) Truncate(size int64) error {
	h.fsys.mu.Lock()
	defer h.fsys.mu.Unlock()
	_, err := h.change("truncate")
	if err == nil {
		h.node.resize(size)
	}
	return err
}

func (h *file) Size() (int64, error) {
	h.fsys.mu.Lock()
	defer h.fsys.mu.Unlock()
	if err := h.usable("stat"); err != nil {
		return 0, err
	}
	return int64(len(h.node.data)), nil
}

func (h *file) Close() error {
	h.fsys.mu.Lock()
	defer h.fsys.mu.Unlock()
	if h.closed {
		return &fs.PathError{Op: "close", Path: h.name, Err: fs.ErrClosed}
	}
	h.closed = true
	return nil
}
