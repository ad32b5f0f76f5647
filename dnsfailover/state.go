package dnsfailover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"understudy/internal/durable"
)

// savedState is what outlives a restart; never the role.
type savedState struct {
	// Maintenance and Forced are as in MachineConfig.
	Maintenance bool   `json:"maintenance,omitempty"`
	Forced      uint64 `json:"forced,omitempty"`
	// QuietUntil ends the time without automatic moves.
	QuietUntil time.Time `json:"quiet_until,omitzero"`
	// Done is the role and epoch for which all actors and hooks have run.
	Done string `json:"done,omitempty"`
	// Adopted are values an operator has declared to be ours to replace.
	Adopted []RRSet `json:"adopted,omitempty"`
}

const (
	stateName   = "state.json"
	historyName = "history.jsonl"
	maxState    = 1 << 20
)

func loadState(dir string) (savedState, error) {
	if err := durable.OS().MkdirAll(dir, 0o750); err != nil {
		return savedState{}, fmt.Errorf("make failover directory: %w", err)
	}
	raw, err := durable.ReadFile(durable.OS(), filepath.Join(dir, stateName), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return savedState{}, nil
	}
	if err != nil {
		return savedState{}, fmt.Errorf("read failover state: %w", err)
	}
	var s savedState
	if err := json.Unmarshal(raw, &s); err != nil {
		return savedState{}, fmt.Errorf("read failover state %s: %w", filepath.Join(dir, stateName), err)
	}
	return s, nil
}

// quietFor is bounded: a wall clock that was wrong must not silence for ever.
func (s savedState) quietFor(now time.Time, t Timing) time.Duration {
	return max(0, min(s.QuietUntil.Sub(now), t.BetweenMoves))
}

// save changes the state and puts it on disk.
func (c *Controller) save(change func(*savedState)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.saved
	change(&s)
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write failover state: %w", err)
	}
	if err := durable.WriteFile(durable.OS(), filepath.Join(c.deps.Dir, stateName), 0o640, raw); err != nil {
		return fmt.Errorf("write failover state: %w", err)
	}
	c.saved = s
	return nil
}

func (c *Controller) adopted() []RRSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.saved.Adopted)
}

// remember saves what must outlive a restart, where it has changed by more than
// the passing of time.
func (c *Controller) remember(snap Snapshot) {
	until := time.Now().Add(snap.QuietFor)
	if snap.QuietFor == 0 {
		until = time.Time{}
	}
	c.mu.Lock()
	old := c.saved
	c.mu.Unlock()
	if d := until.Sub(old.QuietUntil); old.Maintenance == snap.Maintenance && d.Abs() < 10*time.Second {
		return
	}
	if err := c.save(func(s *savedState) { s.Maintenance, s.QuietUntil = snap.Maintenance, until }); err != nil {
		c.log.Error("failover state was not written", "err", err)
	}
}

// saveForced puts a forced epoch on disk; until it is there nothing acts on it.
func (c *Controller) saveForced(ctx context.Context, epoch uint64) {
	if err := c.save(func(s *savedState) { s.Forced = epoch }); err != nil {
		c.log.Error("forced epoch was not written", "epoch", epoch, "err", err)
		c.tell(ctx, ForcedNotSaved{Epoch: epoch})
		return
	}
	c.tell(ctx, ForcedSaved{Epoch: epoch})
}

// Entry is a line of the history.
type Entry struct {
	At   time.Time `json:"at"`
	Site Site      `json:"site"`
	Kind string    `json:"kind"`
	Text string    `json:"text,omitempty"`
}

// history is an append-only file of Entries.
type history struct {
	site Site
	path string

	mu   sync.Mutex
	file *os.File
}

func openHistory(dir string, site Site) (*history, error) {
	path := filepath.Join(dir, historyName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640) //nolint:gosec // the daemon's own directory
	if err != nil {
		return nil, fmt.Errorf("open failover history: %w", err)
	}
	return &history{site: site, path: path, file: f}, nil
}

// add writes a line. The history tells people what happened; nothing depends on
// it, so an error is not the business of who adds.
func (h *history) add(kind, text string) {
	raw, err := json.Marshal(Entry{At: time.Now().UTC().Truncate(time.Millisecond), Site: h.site, Kind: kind, Text: text})
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _ = h.file.Write(append(raw, '\n'))
}

func (h *history) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := errors.Join(h.file.Sync(), h.file.Close()); err != nil {
		return fmt.Errorf("close failover history: %w", err)
	}
	return nil
}

// maxHistory is how much of the history's end is read.
const maxHistory = 1 << 20

// last returns the last n entries, oldest first.
func (h *history) last(n int) ([]Entry, error) {
	f, err := os.Open(h.path)
	if err != nil {
		return nil, fmt.Errorf("read failover history: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err := f.Stat(); err == nil && info.Size() > maxHistory {
		if _, err := f.Seek(-maxHistory, io.SeekEnd); err != nil {
			return nil, fmt.Errorf("read failover history: %w", err)
		}
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read failover history: %w", err)
	}
	var out []Entry
	for line := range bytes.Lines(raw) {
		var e Entry
		if json.Unmarshal(line, &e) == nil { // the first may be cut
			out = append(out, e)
		}
	}
	if len(out) > n {
		out = out[len(out)-n:]
	}
	return out, nil
}
