package queue

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unique"

	"understudy/internal/durable"
)

// A checkpoint is the index in a file, so that recovery reads only the log behind
// it, and so that segments whose messages have all gone can be removed with the
// states they hold. It is taken while the spool works: what changes meanwhile is
// in the log behind the mark, with a higher generation.

// checkpointInfo is what is known of the last checkpoint.
type checkpointInfo struct {
	seq   uint64
	pos   durable.Pos // of its mark
	bytes int64
	// stale: the log has records that it lacks, from before this run.
	stale bool
	// orphans are spill files to remove once a checkpoint is synced.
	orphans []string
}

// checkpointHeader is the first frame.
type checkpointHeader struct {
	Version int         `json:"version"`
	Pos     durable.Pos `json:"pos"`
	Rules   []HoldRule  `json:"rules,omitempty"`
	// Dead is segment.deadSince by segment.
	Dead map[uint64]int64 `json:"dead,omitempty"`
	Keep []uint64         `json:"keep,omitempty"`
}

const (
	checkpointPrefix = "index-"
	checkpointTemp   = "index.tmp"
	// frameBytes is about the size of a frame; maxFrameBytes bounds what is read.
	frameBytes    = 1 << 20
	maxFrameBytes = 1 << 30
	// frameMessages is how many messages are encoded between two moments in which
	// the index is free.
	frameMessages = 256
)

var errCheckpoint = errors.New("malformed checkpoint")

func (s *Spool) checkpointPath(seq uint64) string {
	return filepath.Join(s.cfg.Dir, fmt.Sprintf("%s%016x", checkpointPrefix, seq))
}

// writeCheckpoint writes the index. Nil promises that it is durable.
func (s *Spool) writeCheckpoint(ctx context.Context) error {
	pos, err := s.log.Append(ctx, kindMark, []byte{recordVersion})
	if err != nil {
		return fmt.Errorf("mark checkpoint: %w", err)
	}
	if err := s.repeatRules(ctx); err != nil {
		return err
	}
	// A message whose record is before the mark must be in the index.
	s.settled()

	temp := filepath.Join(s.cfg.Dir, checkpointTemp)
	f, err := s.fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("create checkpoint: %w", err)
	}
	w := &frameWriter{f: f}
	s.writeIndex(w, pos)
	err = w.err
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	seq := s.checkpoint.seq + 1
	if err == nil {
		err = s.fs.Rename(temp, s.checkpointPath(seq))
	}
	if err == nil {
		err = s.fs.SyncDir(s.cfg.Dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write checkpoint: %w", err), ignoreMissing(s.fs.Remove(temp)))
	}
	s.checkpoint.seq, s.checkpoint.pos, s.checkpoint.bytes, s.checkpoint.stale = seq, pos, w.size, false
	if seq > 2 {
		if err := ignoreMissing(s.fs.Remove(s.checkpointPath(seq - 2))); err != nil {
			s.logger.Warn("old checkpoint stays", "err", err)
		}
	}
	s.removeOrphans()
	return nil
}

// removeOrphans removes the spill files of messages that the checkpoint no longer
// has.
func (s *Spool) removeOrphans() {
	if len(s.checkpoint.orphans) == 0 {
		return
	}
	for _, name := range s.checkpoint.orphans {
		if err := ignoreMissing(s.fs.Remove(filepath.Join(s.spillDir(), name))); err != nil {
			s.logger.Warn("orphaned spill file stays", "file", name, "err", err)
		}
	}
	s.checkpoint.orphans = nil
	if err := s.fs.SyncDir(s.spillDir()); err != nil {
		s.logger.Warn("sync of the spill directory", "err", err)
	}
}

func (s *Spool) writeIndex(w *frameWriter, pos durable.Pos) {
	header := checkpointHeader{Version: recordVersion, Pos: pos, Dead: make(map[uint64]int64)}
	if rules := s.rules.Load(); rules != nil {
		header.Rules = *rules
	}
	s.mu.Lock()
	for id, g := range s.segments {
		if g.deadSince != 0 {
			header.Dead[id] = g.deadSince
		}
		if g.keep {
			header.Keep = append(header.Keep, id)
		}
	}
	s.mu.Unlock()
	text, err := json.Marshal(header)
	if err != nil {
		w.err = err
		return
	}
	w.frame(text)
	buf := make([]byte, 0, frameBytes+frameBytes/4)
	count, n := uint64(0), 0
	s.mu.Lock()
	for _, m := range s.messages {
		buf = m.appendEntry(buf, s.clock)
		count++
		if n++; n == frameMessages || len(buf) >= frameBytes {
			s.mu.Unlock()
			n = 0
			if len(buf) >= frameBytes {
				w.frame(buf)
				buf = buf[:0]
			}
			s.mu.Lock()
		}
	}
	s.mu.Unlock()
	if len(buf) > 0 {
		w.frame(buf)
	}
	w.frame(nil)
	w.frame(binary.LittleEndian.AppendUint64(nil, count))
}

// frameWriter writes frames: length, CRC-32C, bytes. An error sticks.
type frameWriter struct {
	f    durable.File
	size int64
	err  error
}

func (w *frameWriter) frame(b []byte) {
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(b)))
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(b, castagnoli()))
	w.write(head[:])
	w.write(b)
}

func (w *frameWriter) write(b []byte) {
	if w.err != nil || len(b) == 0 {
		return
	}
	n, err := w.f.WriteAt(b, w.size)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	w.size += int64(n)
	w.err = err
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errCheckpoint, err)
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxFrameBytes {
		return nil, errCheckpoint
	}
	// Grow with what is there: a wrong length must not take a gigabyte.
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return nil, err
	}
	if len(b) != int(n) || crc32.Checksum(b, castagnoli()) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, errCheckpoint
	}
	return b, nil
}

// appendEntry appends one message of the index.
func (m *message) appendEntry(b []byte, c clock) []byte {
	b = append(b, m.id[:]...)
	b = binary.AppendUvarint(b, m.pos.Segment)
	b = binary.AppendUvarint(b, uint64(m.pos.Offset))
	b = binary.AppendUvarint(b, uint64(m.disk))
	b = binary.AppendUvarint(b, uint64(m.size))
	b = binary.AppendVarint(b, m.received)
	if m.spill == nil {
		b = append(b, 0)
	} else {
		b = append(b, flagSpill)
		b = append(b, m.spill.name[:]...)
		b = binary.AppendUvarint(b, uint64(m.spill.size))
		b = binary.LittleEndian.AppendUint32(b, m.spill.crc)
	}
	b = appendString(b, m.sender)
	b = binary.AppendUvarint(b, uint64(len(m.rcpts)))
	for i := range m.rcpts {
		b = appendString(b, m.rcpts[i].addr.Value())
	}
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = m.appendState(b, c)
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// readEntry reads what appendEntry wrote.
func (s *Spool) readEntry(r *reader) (m *message, route string, err error) {
	m = &message{place: -1}
	copy(m.id[:], r.bytes(16))
	m.pos = durable.Pos{Segment: r.uvarint(), Offset: int64(r.uvarint())}
	m.disk, m.size, m.received = int64(r.uvarint()), int64(r.uvarint()), r.varint()
	if r.byte() == flagSpill {
		m.spill = &spill{}
		copy(m.spill.name[:], r.bytes(16))
		m.spill.size = int64(r.uvarint())
		m.spill.crc = r.uint32()
	}
	m.sender = r.string()
	m.rcpts = make([]rcpt, r.count(1))
	for i := range m.rcpts {
		m.rcpts[i].addr = unique.Make(r.string())
	}
	state := r.bytes(int(r.uint32()))
	if r.bad {
		return nil, "", errCheckpoint
	}
	route, err = m.decodeState(state, s.clock, s.cfg.RetryMax)
	return m, route, err
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint32() uint32 {
	if v := r.bytes(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

// loadCheckpoint fills the index from the newest checkpoint that is intact. With
// none the whole log is replayed. Spool.mu is held.
func (s *Spool) loadCheckpoint() {
	entries, err := s.fs.ReadDir(s.cfg.Dir)
	if err != nil {
		s.logger.Warn("checkpoints cannot be listed", "err", err)
		return
	}
	var seqs []uint64
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), checkpointPrefix); ok {
			if seq, err := strconv.ParseUint(name, 16, 64); err == nil {
				seqs = append(seqs, seq)
			}
		}
	}
	slices.Sort(seqs)
	slices.Reverse(seqs)
	for i, seq := range seqs {
		err := s.readCheckpoint(seq)
		if i == 0 {
			// Also a bad one's number is not used again.
			defer func() { s.checkpoint.seq = seq }()
		}
		if err == nil {
			if i > 0 {
				s.alarms.Raise("queue:checkpoint", "the newest index of the spool was damaged; an older one was used, and recent deliveries may be repeated")
			}
			return
		}
		s.logger.Error("checkpoint cannot be read", "checkpoint", s.checkpointPath(seq), "err", err)
		s.clearIndex()
	}
	if len(seqs) > 0 {
		s.alarms.Raise("queue:checkpoint", "no index of the spool could be read; the log was read instead, and deliveries may be repeated")
	}
}

func (s *Spool) clearIndex() {
	clear(s.messages)
	clear(s.segments)
	clear(s.routes)
	s.totals = totals{}
	s.rules.Store(nil)
	s.checkpoint = checkpointInfo{}
	s.routeNamed("")
}

func (s *Spool) readCheckpoint(seq uint64) error {
	f, err := s.fs.OpenFile(s.checkpointPath(seq), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err == nil {
		err = s.readIndex(bufio.NewReaderSize(io.NewSectionReader(f, 0, size), frameBytes))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	s.checkpoint.seq, s.checkpoint.bytes = seq, size
	return nil
}

func (s *Spool) readIndex(in io.Reader) error {
	text, err := readFrame(in)
	if err != nil {
		return err
	}
	var header checkpointHeader
	if err := json.Unmarshal(text, &header); err != nil {
		return fmt.Errorf("%w: header: %w", errCheckpoint, err)
	}
	if header.Version != recordVersion {
		return fmt.Errorf("%w: version %d", errCheckpoint, header.Version)
	}
	count := uint64(0)
	for {
		frame, err := readFrame(in)
		if err != nil {
			return err
		}
		if len(frame) == 0 {
			break
		}
		r := reader{b: frame}
		for len(r.b) > 0 {
			m, route, err := s.readEntry(&r)
			if err != nil {
				return err
			}
			// An id that left and came back by an import while the checkpoint was
			// written may be there twice; the log behind the mark has the truth.
			if count++; s.messages[m.id] == nil {
				s.insert(m, route)
			}
		}
	}
	last, err := readFrame(in)
	if err != nil {
		return err
	}
	if len(last) != 8 || binary.LittleEndian.Uint64(last) != count {
		return fmt.Errorf("%w: message count", errCheckpoint)
	}
	for id, at := range header.Dead {
		s.segment(id).deadSince = at
	}
	for _, id := range header.Keep {
		s.segment(id).keep = true
	}
	if header.Rules != nil {
		s.rules.Store(&header.Rules)
	}
	s.checkpoint.pos = header.Pos
	return nil
}
