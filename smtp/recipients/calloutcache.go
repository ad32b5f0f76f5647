package recipients

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"understudy/internal/durable"
)

// maxCalloutEntries bounds the cache: strangers decide what is asked for.
const maxCalloutEntries = 200_000

// calloutEntry is one remembered answer.
type calloutEntry struct {
	Yes bool      `json:"yes"`
	At  time.Time `json:"at"`
}

func (e calloutEntry) answer() calloutAnswer {
	if e.Yes {
		return calloutYes
	}
	return calloutNo
}

// calloutCache remembers the primary's answers, also across a restart. What was
// learned in the last minute before a crash is learned again.
type calloutCache struct {
	fs       durable.FS
	path     string // empty keeps it in memory
	identity string

	mu      sync.Mutex
	entries map[string]calloutEntry
	dirty   bool
}

// calloutFile is the cache on disk.
type calloutFile struct {
	Version  int                     `json:"v"`
	Identity string                  `json:"identity"`
	Entries  map[string]calloutEntry `json:"entries"`
}

// openCalloutCache returns a usable cache also with an error.
func openCalloutCache(fsys durable.FS, dir, name, identity string) (*calloutCache, error) {
	c := &calloutCache{fs: fsys, identity: identity, entries: make(map[string]calloutEntry)}
	if dir == "" {
		return c, nil
	}
	c.path = filepath.Join(dir, name+".callout")
	data, err := durable.ReadFile(fsys, c.path, 256<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read callout cache: %w", err)
	}
	var f calloutFile
	if err := json.Unmarshal(data, &f); err != nil {
		return c, fmt.Errorf("decode callout cache: %w", err)
	}
	if f.Version == 1 && f.Identity == identity && f.Entries != nil {
		c.entries = f.Entries
	}
	return c, nil
}

func (c *calloutCache) get(key string) (calloutEntry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	return e, ok
}

// put remembers an answer. A full cache forgets negative answers first, any of
// them: positives are what keeps mail flowing.
func (c *calloutCache) put(key string, yes bool, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.entries[key]; !there && len(c.entries) >= maxCalloutEntries && !c.forgetOne(yes) {
		return
	}
	c.entries[key] = calloutEntry{yes, at}
	c.dirty = true
}

// forgetOne makes room; for a positive answer also at the cost of another one.
func (c *calloutCache) forgetOne(positive bool) bool {
	const tries = 64
	var victim string
	n := 0
	for k, e := range c.entries {
		victim = k
		if !e.Yes {
			delete(c.entries, k)
			return true
		}
		if n++; n == tries {
			break
		}
	}
	if !positive {
		return false
	}
	delete(c.entries, victim)
	return true
}

func (c *calloutCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

func (c *calloutCache) expire(before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, e := range c.entries {
		if e.At.Before(before) {
			delete(c.entries, k)
			c.dirty = true
		}
	}
}

// save writes the cache if it has changed.
func (c *calloutCache) save() error {
	c.mu.Lock()
	if c.path == "" || !c.dirty {
		c.mu.Unlock()
		return nil
	}
	data, err := json.Marshal(calloutFile{1, c.identity, c.entries})
	c.dirty = false
	c.mu.Unlock()
	if err == nil {
		err = durable.WriteFile(c.fs, c.path, 0o640, data)
	}
	if err != nil {
		c.mu.Lock()
		c.dirty = true
		c.mu.Unlock()
		return fmt.Errorf("write callout cache: %w", err)
	}
	return nil
}
