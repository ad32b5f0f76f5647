package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/durable"
	"understudy/smtp"
)

var errEnded = errors.New("draft has ended")

// budget bounds the memory of all drafts together.
type budget struct {
	limit int64
	used  atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// buffers keeps draft buffers for reuse, by size: each class is four times the
// one before.
type buffers struct {
	sizes []int
	pools []sync.Pool
}

// maxHintBytes bounds the memory that an announced size takes in advance.
const maxHintBytes = 64 << 10

// spillBuffer is the write buffer of a spilled draft, in bytes.
const spillBuffer = 256 << 10

func newBuffers(largest int64) *buffers {
	b := &buffers{}
	for n := int64(8 << 10); n < largest; n *= 4 {
		b.sizes = append(b.sizes, int(n))
	}
	b.sizes = append(b.sizes, int(max(largest, spillBuffer)))
	b.pools = make([]sync.Pool, len(b.sizes))
	return b
}

// get returns an empty buffer with room for n bytes, or for as many as there are.
func (b *buffers) get(n int64) *[]byte {
	class := b.class(n)
	if p, ok := b.pools[class].Get().(*[]byte); ok {
		*p = (*p)[:0]
		return p
	}
	buf := make([]byte, 0, b.sizes[class])
	return &buf
}

func (b *buffers) class(n int64) int {
	for i, size := range b.sizes {
		if n <= int64(size) {
			return i
		}
	}
	return len(b.sizes) - 1
}

func (b *buffers) put(p *[]byte) {
	b.pools[b.class(int64(cap(*p)))].Put(p)
}

// draft is a message that is being received: in memory up to SpillBytes, then in
// a file.
type draft struct {
	s     *Spool
	id    ident
	text  string
	buf   *[]byte
	file  *spillFile
	size  int64
	err   error
	ended bool
	// reserved: the id came with an import and is in Spool.reserved.
	reserved bool
	// kept: the spill file is no longer the draft's to remove.
	kept bool
}

var _ smtp.Draft = (*draft)(nil)

// Room implements smtp.Queue.
func (s *Spool) Room(sizeBytes int64) error {
	if !s.space.room(sizeBytes) {
		return fmt.Errorf("%w: the reserve of the spool's file system is reached", smtp.ErrFull)
	}
	if s.memory.used.Load() >= s.memory.limit {
		return fmt.Errorf("%w: too many messages are being received", smtp.ErrFull)
	}
	return nil
}

// Create implements smtp.Queue.
func (s *Spool) Create(ctx context.Context, sizeHint int64) (smtp.Draft, error) {
	d, err := s.create(ctx, sizeHint, s.idents.next(time.Now()))
	if err != nil {
		return nil, err
	}
	return d, nil
}

// create starts a draft with a given id.
func (s *Spool) create(ctx context.Context, sizeHint int64, id ident) (*draft, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.Room(sizeHint); err != nil {
		return nil, err
	}
	d := &draft{s: s, id: id}
	d.text = d.id.String()
	if sizeHint > s.cfg.SpillBytes {
		if err := d.spill(); err != nil {
			d.Discard()
			return nil, err
		}
		return d, nil
	}
	// The client's word is worth no more than this before its bytes have come.
	if err := d.grow(min(max(sizeHint, 1), maxHintBytes)); err != nil {
		d.Discard()
		return nil, err
	}
	return d, nil
}

func (d *draft) ID() string { return d.text }

// Renew starts an empty draft with the id of d, which is not committed any more:
// a filter that changes a message does not change its id.
func (d *draft) Renew(ctx context.Context, sizeHint int64) (smtp.Draft, error) {
	if d.ended {
		return nil, errEnded
	}
	again, err := d.s.create(ctx, sizeHint, d.id)
	if err != nil {
		return nil, err
	}
	return again, nil
}

func (d *draft) Write(p []byte) (int, error) {
	if d.ended {
		return 0, errEnded
	}
	if d.err != nil {
		return 0, d.err
	}
	if d.file == nil && d.size+int64(len(p)) > d.s.cfg.SpillBytes {
		d.err = d.spill()
	}
	if d.err == nil {
		if d.file != nil {
			d.err = d.file.write(p)
		} else if d.err = d.grow(d.size + int64(len(p))); d.err == nil {
			*d.buf = append(*d.buf, p...)
		}
	}
	if d.err != nil {
		return 0, d.err
	}
	d.size += int64(len(p))
	return len(p), nil
}

// grow makes room for n bytes in memory.
func (d *draft) grow(n int64) error {
	if d.buf != nil && int64(cap(*d.buf)) >= n {
		return nil
	}
	pool := d.s.buffers
	want := int64(pool.sizes[pool.class(n)])
	if !d.s.memory.take(want) {
		return fmt.Errorf("%w: too many messages are being received", smtp.ErrFull)
	}
	buf := pool.get(n)
	if d.buf != nil {
		*buf = append(*buf, *d.buf...)
		d.release()
	}
	d.buf = buf
	return nil
}

// release gives the buffer back.
func (d *draft) release() {
	if d.buf != nil {
		d.s.memory.give(int64(cap(*d.buf)))
		d.s.buffers.put(d.buf)
		d.buf = nil
	}
}

// spill moves the draft into a file.
func (d *draft) spill() error {
	f, err := d.s.newSpillFile()
	if err != nil {
		return err
	}
	d.file = f
	if d.buf != nil {
		err = f.write(*d.buf)
		d.release()
	}
	return err
}

func (d *draft) Open() (io.ReadSeeker, error) {
	if d.ended {
		return nil, errEnded
	}
	if d.err != nil {
		return nil, d.err
	}
	if d.file == nil {
		if d.buf == nil {
			return bytes.NewReader(nil), nil
		}
		return bytes.NewReader(*d.buf), nil
	}
	if d.err = d.file.flush(); d.err != nil {
		return nil, d.err
	}
	return io.NewSectionReader(d.file.f, 0, d.size), nil
}

func (d *draft) Discard() {
	if d.ended {
		return
	}
	d.ended = true
	d.release()
	if d.reserved {
		d.s.mu.Lock()
		delete(d.s.reserved, d.id)
		d.s.mu.Unlock()
	}
	if d.file != nil && !d.kept {
		d.file.discard()
	}
}

// Commit implements smtp.Draft.
func (d *draft) Commit(ctx context.Context, env *smtp.Envelope, header []byte) error {
	return d.commit(ctx, env, header, nil)
}

// commit is Commit; prepare, where given, sets the first state of the message and
// returns its route.
func (d *draft) commit(ctx context.Context, env *smtp.Envelope, header []byte, prepare func(*message) string) error {
	if d.ended {
		return errEnded
	}
	err := d.err
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && !d.s.space.room(0) {
		err = fmt.Errorf("%w: the reserve of the spool's file system is reached", smtp.ErrFull)
	}
	if err == nil {
		env.ID, env.SizeBytes = d.text, d.size+int64(len(header))
		err = d.s.accept(ctx, d, env, header, prepare)
	}
	if err == nil {
		d.kept = true
	}
	d.Discard()
	if d.kept && d.file != nil {
		if closeErr := d.file.release(); closeErr != nil {
			// The bytes are synced, or their message has failed already.
			d.s.logger.Warn("spill file not closed", "file", d.file.name.String(), "err", closeErr)
		}
	}
	return err
}

// scratch keeps the buffers for what stands before the bytes of a message.
type scratch struct{ pool sync.Pool }

func (s *scratch) get() *[]byte {
	if p, ok := s.pool.Get().(*[]byte); ok {
		*p = (*p)[:0]
		return p
	}
	b := make([]byte, 0, 2048)
	return &b
}

func (s *scratch) put(p *[]byte) {
	if cap(*p) <= 64<<10 {
		s.pool.Put(p)
	}
}

// accept stores a draft with its envelope: one record, synced; then the message is
// in the index.
func (s *Spool) accept(ctx context.Context, d *draft, env *smtp.Envelope, header []byte, prepare func(*message) string) error {
	if env.Received.IsZero() {
		env.Received = time.Now()
	}
	m := newMessage(d.id, env, s.clock.now())
	p := prefix{id: d.id, inline: uint64(len(header))}
	body := []byte(nil)
	if d.file != nil {
		ref, err := d.file.finish()
		if err != nil {
			return err
		}
		m.spill, p.spill, p.flags = &ref, ref, flagSpill
	} else if d.buf != nil {
		body = *d.buf
		p.inline += uint64(len(body))
	}
	s.judge(m, env)
	name := env.Route
	if prepare != nil {
		name = prepare(m)
	}
	m.route = &route{name: name} // for the snapshot; enter puts it on the real one
	head := s.scratch.get()
	defer s.scratch.put(head)
	b := append(*head, make([]byte, prefixBytes)...)
	if m.phase != phaseQueued || prepare != nil {
		b = m.appendState(b, s.clock)
		p.state = uint32(len(b) - prefixBytes)
	}
	at := len(b)
	b, err := appendEnvelope(b, env)
	if err != nil {
		return err
	}
	p.envelope = uint32(len(b) - at)
	appendPrefix(b[:0], &p)
	*head = b

	// Until the message is in the index, its segment must not look empty, and no
	// checkpoint may begin after its record and miss it.
	s.pending.RLock()
	defer s.pending.RUnlock()
	m.pos, err = s.log.Append(ctx, kindMessage, b, header, body)
	if err != nil {
		return s.appendFailed(d, m, err)
	}
	m.disk = durable.DiskBytes(len(b) + len(header) + len(body))
	s.enter(m, name)
	return nil
}

// appendFailed handles a message whose record did not get to the disk, or not for
// certain. In the second case a tombstone keeps it from coming back after a
// restart, and its spill file stays until that is synced.
func (s *Spool) appendFailed(d *draft, m *message, err error) error {
	if errors.Is(err, durable.ErrPoisoned) {
		s.log.AppendLazy(kindRemoved, appendTombstone(nil, m.id, m.gen+1, time.Now()))
		s.mu.Lock()
		s.bury(m, m.gen+1)
		s.mu.Unlock()
		d.kept = true
	}
	if errors.Is(err, durable.ErrNoSpace) {
		s.space.exhausted()
		return fmt.Errorf("%w: %w", smtp.ErrFull, err)
	}
	return fmt.Errorf("store message: %w", err)
}

// spillFile is a body on its way into a file of its own.
type spillFile struct {
	s    *Spool
	name ident
	f    durable.File
	buf  *[]byte
	size int64 // written to f
	crc  uint32
	next int64 // size at which the free space is looked at again
}

// spillCheck is how many bytes a spill file may grow between two looks at the
// free space.
const spillCheck = 8 << 20

func (s *Spool) newSpillFile() (*spillFile, error) {
	cost := s.spillCost()
	if !s.memory.take(cost) {
		return nil, fmt.Errorf("%w: too many messages are being received", smtp.ErrFull)
	}
	// The name is its own, not the message's id: an id can come back by an import
	// while the file of its first life still waits to be removed.
	x := &spillFile{s: s, name: s.idents.next(time.Now()), next: spillCheck}
	f, err := s.fs.OpenFile(s.spillPath(x.name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		s.memory.give(cost)
		return nil, s.spillError("create spill file", err)
	}
	x.f, x.buf = f, s.buffers.get(spillBuffer)
	return x, nil
}

// spillCost is the memory a spilled draft takes.
func (s *Spool) spillCost() int64 { return int64(s.buffers.sizes[s.buffers.class(spillBuffer)]) }

func (s *Spool) spillDir() string { return filepath.Join(s.cfg.Dir, "spill") }

func (s *Spool) spillPath(name ident) string { return filepath.Join(s.spillDir(), name.String()) }

func (s *Spool) spillError(doing string, err error) error {
	if errors.Is(err, durable.ErrNoSpace) {
		s.space.exhausted()
		return fmt.Errorf("%s: %w: %w", doing, smtp.ErrFull, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (x *spillFile) write(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), spillBuffer-len(*x.buf))
		*x.buf = append(*x.buf, p[:n]...)
		p = p[n:]
		if len(*x.buf) == spillBuffer {
			if err := x.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *spillFile) flush() error {
	if len(*x.buf) == 0 {
		return nil
	}
	if x.size >= x.next {
		x.next += spillCheck
		x.s.space.measure()
		if !x.s.space.room(0) {
			return fmt.Errorf("%w: the reserve of the spool's file system is reached", smtp.ErrFull)
		}
	}
	n, err := x.f.WriteAt(*x.buf, x.size)
	if err == nil && n < len(*x.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return x.s.spillError("write spill file", err)
	}
	x.crc = crc32.Update(x.crc, castagnoli(), *x.buf)
	x.size += int64(n)
	*x.buf = (*x.buf)[:0]
	return nil
}

// castagnoli is the table of CRC-32C; crc32 keeps one for all.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// finish makes the file durable: nil promises its bytes and its directory entry.
func (x *spillFile) finish() (spill, error) {
	if err := x.flush(); err != nil {
		return spill{}, err
	}
	if err := x.f.Sync(); err != nil {
		return spill{}, x.s.spillError("sync spill file", err)
	}
	if err := x.s.fs.SyncDir(x.s.spillDir()); err != nil {
		return spill{}, x.s.spillError("sync spill directory", err)
	}
	return spill{x.name, x.size, x.crc}, nil
}

// release closes the file; it stays on disk.
func (x *spillFile) release() error {
	if x.buf != nil {
		x.s.buffers.put(x.buf)
		x.buf = nil
		x.s.memory.give(x.s.spillCost())
	}
	return x.f.Close()
}

// discard removes the file. What cannot be removed now is removed by the next
// recovery.
func (x *spillFile) discard() {
	err := errors.Join(x.release(), x.s.fs.Remove(x.s.spillPath(x.name)))
	if err != nil {
		x.s.logger.Warn("discarded spill file stays", "file", x.name.String(), "err", err)
	}
}
