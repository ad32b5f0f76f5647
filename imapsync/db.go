package imapsync

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The buckets of a base.
const (
	bucketMeta    = "meta"
	bucketBox     = "box"
	bucketPair    = "pair"
	bucketJournal = "journal"
	bucketTomb    = "tomb"
	bucketHold    = "hold"
)

const (
	baseVersion = 1
	metaKey     = "meta"
	// lockWait is how long Open waits for another process that has the file.
	lockWait = 200 * time.Millisecond
	// tombKeep is how long deletions are remembered.
	tombKeep = 30 * 24 * time.Hour
)

// db is the base of one account on disk: one bbolt file. The file is locked as
// long as it is open, which is the lock among runners of one machine.
type db struct {
	bolt *bolt.DB
	// power, in tests, ends the process before or after a commit.
	power func(after bool) error
}

// openDB opens or creates the file.
func openDB(path string, readOnly bool) (*db, error) {
	b, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, ReadOnly: readOnly, FreelistType: bolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open base %s: %w", path, ErrBusy)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("open base %s: %w: %w", path, ErrState, err)
	case err != nil:
		return nil, fmt.Errorf("open base: %w", err)
	}
	d := &db{bolt: b}
	begun := false
	err = b.View(func(tx *bolt.Tx) error {
		begun = tx.Bucket([]byte(bucketHold)) != nil
		return nil
	})
	if err == nil && !begun && !readOnly {
		err = b.Update(func(tx *bolt.Tx) error {
			for _, name := range []string{bucketMeta, bucketBox, bucketPair, bucketJournal, bucketTomb, bucketHold} {
				if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		b.Close() //nolint:errcheck // the first fault is told
		return nil, fmt.Errorf("open base: %w", err)
	}
	return d, nil
}

func (d *db) close() error { return d.bolt.Close() }

// image is the base without its pairs.
type image struct {
	meta    meta
	boxes   []*baseBox
	intents []intent
	holds   []Hold
}

// total counts pairs.
func (i *image) total() int {
	n := 0
	for _, b := range i.boxes {
		n += b.Pairs
	}
	return n
}

// load reads all but the pairs; an empty file gives a new base.
func (d *db) load() (*image, error) {
	img := &image{}
	err := d.bolt.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket([]byte(bucketMeta)); b != nil {
			if raw := b.Get([]byte(metaKey)); raw != nil {
				if err := json.Unmarshal(raw, &img.meta); err != nil {
					return err
				}
			}
		}
		err := each(tx, bucketBox, func(_, raw []byte) error {
			box := &baseBox{}
			img.boxes = append(img.boxes, box)
			return json.Unmarshal(raw, box)
		})
		if err != nil {
			return err
		}
		err = each(tx, bucketJournal, func(k, raw []byte) error {
			var in intent
			if err := json.Unmarshal(raw, &in); err != nil {
				return err
			}
			in.seq = binary.BigEndian.Uint64(k)
			img.intents = append(img.intents, in)
			return nil
		})
		if err != nil {
			return err
		}
		return each(tx, bucketHold, func(_, raw []byte) error {
			var h Hold
			if err := json.Unmarshal(raw, &h); err != nil {
				return err
			}
			img.holds = append(img.holds, h)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read base: %w: %w", ErrState, err)
	}
	if img.meta.Version > baseVersion {
		return nil, fmt.Errorf("read base: %w: version %d is newer than this program", ErrState, img.meta.Version)
	}
	if img.meta.ID == "" {
		var id [12]byte
		rand.Read(id[:])
		img.meta = meta{Version: baseVersion, ID: hex.EncodeToString(id[:])}
	}
	return img, nil
}

func each(tx *bolt.Tx, bucket string, f func(k, v []byte) error) error {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	return b.ForEach(f)
}

// loadPairs reads the pairs of boxes that have none in memory yet.
func (d *db) loadPairs(boxes []*baseBox) error {
	err := d.bolt.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketPair))
		if b == nil {
			return nil
		}
		dec := pairDecoder{flags: make(map[string]Flags)}
		for _, box := range boxes {
			if box.loaded {
				continue
			}
			box.pairs = make([]*pair, 0, box.Pairs)
			prefix := binary.BigEndian.AppendUint64(nil, box.ID)
			c := b.Cursor()
			for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
				p, err := dec.decode(k, v)
				if err != nil {
					return err
				}
				box.pairs = append(box.pairs, p)
			}
			box.loaded = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read pairs: %w: %w", ErrState, err)
	}
	return nil
}

// findGIDs reads the pairs of any box that have one of the identities on a side.
func (d *db) findGIDs(s Side, want map[string]bool, skip map[uint64]bool) ([]*pair, error) {
	if len(want) == 0 {
		return nil, nil
	}
	var out []*pair
	err := d.bolt.View(func(tx *bolt.Tx) error {
		dec := pairDecoder{flags: make(map[string]Flags)}
		return each(tx, bucketPair, func(k, v []byte) error {
			if len(k) == 16 && skip[binary.BigEndian.Uint64(k)] {
				return nil
			}
			p, err := dec.decode(k, v)
			if err == nil && p.gid[s] != "" && want[p.gid[s]] {
				out = append(out, p)
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read pairs: %w: %w", ErrState, err)
	}
	return out, nil
}

// change is one transaction of the base.
type change struct {
	meta        *meta
	putBoxes    []*baseBox
	dropBoxes   []*baseBox // with their pairs
	putPairs    []*pair
	dropPairs   []pairKey
	putIntents  []*intent // gets its seq
	dropIntents []uint64
	putHolds    []Hold
	dropHolds   []string
	tombs       []tomb
	wipe        bool // everything but meta goes first
}

type pairKey struct{ box, id uint64 }

func (k pairKey) bytes() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), k.box), k.id)
}

func (p *pair) place() pairKey { return pairKey{p.box, p.id} }

// apply commits c: all of it, or nothing, synced.
func (d *db) apply(c change) error {
	if d.power != nil {
		if err := d.power(false); err != nil {
			return err
		}
	}
	err := d.bolt.Update(func(tx *bolt.Tx) error { return c.write(tx) })
	if err != nil {
		return fmt.Errorf("save base: %w", err)
	}
	if d.power != nil {
		return d.power(true)
	}
	return nil
}

func (c change) write(tx *bolt.Tx) error {
	if c.wipe {
		for _, name := range []string{bucketBox, bucketPair, bucketJournal, bucketHold} {
			if err := tx.DeleteBucket([]byte(name)); err != nil {
				return err
			}
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
	}
	put := func(bucket string, key []byte, v any) error {
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return tx.Bucket([]byte(bucket)).Put(key, raw)
	}
	pairs := tx.Bucket([]byte(bucketPair))
	counts := make(map[uint64]tally)
	for _, k := range c.dropPairs {
		counts[k.box] = counts[k.box].add(pairs.Get(k.bytes()), -1)
		if err := pairs.Delete(k.bytes()); err != nil {
			return err
		}
	}
	for _, p := range c.putPairs {
		raw := p.encode()
		counts[p.box] = counts[p.box].add(pairs.Get(p.place().bytes()), -1).add(raw, 1)
		if err := pairs.Put(p.place().bytes(), raw); err != nil {
			return err
		}
	}
	for _, box := range c.putBoxes {
		if err := putBox(tx, *box); err != nil {
			return err
		}
	}
	for _, box := range c.dropBoxes {
		if err := dropBox(tx, box.ID); err != nil {
			return err
		}
	}
	if err := adjust(tx, counts); err != nil {
		return err
	}
	journal := tx.Bucket([]byte(bucketJournal))
	for _, seq := range c.dropIntents {
		if err := journal.Delete(binary.BigEndian.AppendUint64(nil, seq)); err != nil {
			return err
		}
	}
	for _, in := range c.putIntents {
		seq, err := journal.NextSequence()
		if err != nil {
			return err
		}
		in.seq = seq
		if err := put(bucketJournal, binary.BigEndian.AppendUint64(nil, seq), in); err != nil {
			return err
		}
	}
	for _, id := range c.dropHolds {
		if err := tx.Bucket([]byte(bucketHold)).Delete([]byte(id)); err != nil {
			return err
		}
	}
	for _, h := range c.putHolds {
		if err := put(bucketHold, []byte(h.ID), h); err != nil {
			return err
		}
	}
	if err := c.bury(tx, put); err != nil {
		return err
	}
	if c.meta != nil {
		return put(bucketMeta, []byte(metaKey), c.meta)
	}
	return nil
}

// bury writes tombs and forgets old ones.
func (c change) bury(tx *bolt.Tx, put func(string, []byte, any) error) error {
	if len(c.tombs) == 0 {
		return nil
	}
	b := tx.Bucket([]byte(bucketTomb))
	for _, t := range c.tombs {
		seq, err := b.NextSequence()
		if err != nil {
			return err
		}
		key := binary.BigEndian.AppendUint64(nil, uint64(t.When.Unix()))
		if err := put(bucketTomb, binary.BigEndian.AppendUint64(key, seq), t); err != nil {
			return err
		}
	}
	limit := binary.BigEndian.AppendUint64(nil, uint64(c.tombs[0].When.Add(-tombKeep).Unix()))
	cur := b.Cursor()
	for k, _ := cur.First(); k != nil && bytes.Compare(k, limit) < 0; k, _ = cur.First() {
		if err := cur.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// putBox writes a box; how many pairs it has is counted here, not by the caller.
func putBox(tx *bolt.Tx, box baseBox) error {
	b := tx.Bucket([]byte(bucketBox))
	key := binary.BigEndian.AppendUint64(nil, box.ID)
	box.Pairs, box.Refused = 0, 0
	if raw := b.Get(key); raw != nil {
		var old baseBox
		if err := json.Unmarshal(raw, &old); err != nil {
			return err
		}
		box.Pairs, box.Refused = old.Pairs, old.Refused
	}
	raw, err := json.Marshal(&box)
	if err != nil {
		return err
	}
	return b.Put(key, raw)
}

func dropBox(tx *bolt.Tx, id uint64) error {
	key := binary.BigEndian.AppendUint64(nil, id)
	if err := tx.Bucket([]byte(bucketBox)).Delete(key); err != nil {
		return err
	}
	cur := tx.Bucket([]byte(bucketPair)).Cursor()
	for k, _ := cur.Seek(key); k != nil && bytes.HasPrefix(k, key); k, _ = cur.Seek(key) {
		if err := cur.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// tally is how the numbers of a box change.
type tally struct{ pairs, refused int }

// add counts the encoded pair raw, which may be nil.
func (t tally) add(raw []byte, n int) tally {
	if len(raw) < 2 {
		return t
	}
	t.pairs += n
	if half(raw[1]) == refused {
		t.refused += n
	}
	return t
}

// adjust keeps the numbers of each box.
func adjust(tx *bolt.Tx, counts map[uint64]tally) error {
	b := tx.Bucket([]byte(bucketBox))
	for id, n := range counts {
		key := binary.BigEndian.AppendUint64(nil, id)
		raw := b.Get(key)
		if n == (tally{}) || raw == nil {
			continue
		}
		var box baseBox
		if err := json.Unmarshal(raw, &box); err != nil {
			return err
		}
		box.Pairs += n.pairs
		box.Refused += n.refused
		raw, err := json.Marshal(&box)
		if err != nil {
			return err
		}
		if err := b.Put(key, raw); err != nil {
			return err
		}
	}
	return nil
}
