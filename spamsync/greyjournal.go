package spamsync

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/internal/durable"
)

// kindGrey marks a greylist record in the journal.
const kindGrey = 'G'

// greySegmentBytes is the size of a journal segment; a record takes about 100 bytes.
const greySegmentBytes = 4 << 20

// journalTimeout bounds how long a message waits for its record to be on disk.
const journalTimeout = 5 * time.Second

// greyRecord is a sight that the state has not taken.
type greyRecord struct {
	first, expires time.Time
	pos            durable.Pos // zero where only memory has it
}

// greyLine is a record in the journal; times are Unix milliseconds.
type greyLine struct {
	Key     string `json:"k"`
	First   int64  `json:"f"`
	Expires int64  `json:"e"`
}

// GreyJournal keeps greylist records on disk while the state does not take them.
type GreyJournal struct {
	log   *durable.Log
	found map[string]greyRecord
}

// OpenGreyJournal opens the journal in dir and reads what it holds; damage is
// logged and passed over. The caller gives it to one NewGreylist, whose Run
// writes it, and closes it after that has returned.
func OpenGreyJournal(dir string, fsys durable.FS, logger *slog.Logger, reg prometheus.Registerer) (*GreyJournal, error) {
	log, err := durable.OpenLog(durable.LogConfig{
		Dir: dir, FS: fsys, Name: "greylist", SegmentBytes: greySegmentBytes, MaxBatchBytes: 1 << 20,
		MaxRecordBytes: 4 << 10, NoSpare: true, Logger: logger, Registerer: reg,
	})
	if err != nil {
		return nil, fmt.Errorf("open greylist journal: %w", err)
	}
	j := &GreyJournal{log: log, found: make(map[string]greyRecord)}
	_, err = log.Replay(durable.Pos{}, func(r durable.Record) error {
		line, ok := parseGreyLine(r)
		if !ok {
			return nil
		}
		rec := greyRecord{first: time.UnixMilli(line.First).UTC(), expires: time.UnixMilli(line.Expires).UTC(), pos: r.Pos}
		if old, ok := j.found[line.Key]; ok && old.first.Before(rec.first) && old.expires.After(rec.first) {
			rec.first = old.first
		}
		j.found[line.Key] = rec
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read greylist journal: %w", cmp.Or(log.Close(), err))
	}
	return j, nil
}

// parseGreyLine reads a record; false for what this version does not know.
func parseGreyLine(r durable.Record) (greyLine, bool) {
	var line greyLine
	err := json.Unmarshal(r.Payload, &line)
	return line, r.Kind == kindGrey && err == nil && line.Key != ""
}

// Close closes the files.
func (j *GreyJournal) Close() error { return j.log.Close() }

// compact removes the segments whose records are all merged.
func (j *GreyJournal) compact(ctx context.Context, local *greyLocal) error {
	if err := j.log.Seal(ctx); err != nil {
		return err
	}
	oldest := local.oldest()
	for _, s := range j.log.Segments() {
		if s.Sealed && s.ID < oldest {
			if err := j.log.Remove(s.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// greyLocal is the memory of what the state has not taken.
type greyLocal struct {
	journal *GreyJournal
	limit   int

	mu      sync.Mutex
	records map[string]greyRecord
	writing int // records on their way to the journal
}

func newGreyLocal(limit int) *greyLocal {
	return &greyLocal{limit: limit, records: make(map[string]greyRecord)}
}

func (l *greyLocal) load(found map[string]greyRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.Copy(l.records, found)
}

func (l *greyLocal) first(key string, now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.records[key]; ok && now.Before(r.expires) {
		return r.first
	}
	return time.Time{}
}

// put keeps a record; an earlier one that still lives stays. False: there is no room.
func (l *greyLocal) put(key string, r greyRecord) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.records[key]; ok {
		if old.first.Before(r.first) && r.first.Before(old.expires) {
			return true
		}
	} else if len(l.records) >= l.limit {
		for k, old := range l.records {
			if !r.first.Before(old.expires) {
				delete(l.records, k)
			}
		}
		if len(l.records) >= l.limit {
			return false
		}
	}
	l.records[key] = r
	return true
}

// write puts the record of key into the journal.
func (l *greyLocal) write(ctx context.Context, key string) error {
	l.mu.Lock()
	r, ok := l.records[key]
	if !ok || l.journal == nil || r.pos != (durable.Pos{}) {
		l.mu.Unlock()
		return nil
	}
	l.writing++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.writing--
		l.mu.Unlock()
	}()
	line, err := json.Marshal(greyLine{Key: key, First: r.first.UnixMilli(), Expires: r.expires.UnixMilli()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, journalTimeout)
	defer cancel()
	pos, err := l.journal.log.Append(ctx, kindGrey, line)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now, ok := l.records[key]; ok && now.first.Equal(r.first) {
		now.pos = pos
		l.records[key] = now
	}
	return nil
}

func (l *greyLocal) get(key string) (greyRecord, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.records[key]
	return r, ok
}

func (l *greyLocal) drop(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.records, key)
}

func (l *greyLocal) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.records)
}

// keys are the keys, oldest record first.
func (l *greyLocal) keys() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]string, 0, len(l.records))
	for k := range l.records {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(l.records[a].first.Compare(l.records[b].first), cmp.Compare(a, b))
	})
	return out
}

// oldest is the first segment with a record that is still needed. What is put
// from now on goes into a segment that is not sealed yet.
func (l *greyLocal) oldest() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing > 0 {
		return 0
	}
	oldest := uint64(math.MaxUint64)
	for _, r := range l.records {
		if r.pos != (durable.Pos{}) {
			oldest = min(oldest, r.pos.Segment)
		}
	}
	return oldest
}
