package recipients

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"understudy/internal/durable"
)

// maxSnapshotBytes bounds what is read back.
const maxSnapshotBytes = 2 << 30

// snapshot keeps the last believed state of one source on disk: NAME.set holds
// the keys, NAME.age when they were confirmed last, so that a confirmation does
// not write the keys again.
type snapshot struct {
	fs       durable.FS
	dir      string // empty keeps nothing
	name     string
	identity string // of the source's configuration: another source's set is not ours
}

// snapshotHeader is the first line of NAME.set; the keys and a CRC32C of all
// follow.
type snapshotHeader struct {
	Version  int             `json:"v"`
	ID       int64           `json:"id"`
	Identity string          `json:"identity"`
	AsOf     time.Time       `json:"as_of"`
	Whole    bool            `json:"whole"`
	Keys     int             `json:"keys"`
	Bytes    int             `json:"bytes"`
	Tables   []snapshotTable `json:"tables,omitempty"`
}

type snapshotTable struct {
	Format string `json:"format"`
	Source string `json:"source"`
}

// snapshotAge is NAME.age.
type snapshotAge struct {
	ID   int64     `json:"id"`
	AsOf time.Time `json:"as_of"`
}

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func (s snapshot) path(ext string) string { return filepath.Join(s.dir, s.name+ext) }

// write stores st and notes in it where.
func (s snapshot) write(st *state) error {
	if s.dir == "" {
		return nil
	}
	h := snapshotHeader{
		Version: 1, ID: time.Now().UnixNano(), Identity: s.identity, AsOf: st.asOf, Whole: st.whole,
		Keys: st.keys.len(), Bytes: len(st.keys.arena),
	}
	for _, t := range st.tables {
		h.Tables = append(h.Tables, snapshotTable{t.format, t.source})
	}
	head, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	data := make([]byte, 0, len(head)+1+len(st.keys.arena)+4)
	data = append(append(data, head...), '\n')
	data = append(data, st.keys.arena...)
	data = binary.BigEndian.AppendUint32(data, castagnoli(data))
	if err := durable.WriteFile(s.fs, s.path(".set"), 0o640, data); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	st.saved = h.ID
	return nil
}

// touch stores only st's age; the rest is in the file already.
func (s snapshot) touch(st *state) error {
	if s.dir == "" {
		return nil
	}
	data, err := json.Marshal(snapshotAge{st.saved, st.asOf})
	if err != nil {
		return fmt.Errorf("encode snapshot age: %w", err)
	}
	if err := durable.WriteFile(s.fs, s.path(".age"), 0o640, data); err != nil {
		return fmt.Errorf("write snapshot age: %w", err)
	}
	return nil
}

// errSnapshot is wrapped by read for a file that is not what write wrote.
var errSnapshot = errors.New("damaged snapshot")

// read returns what was kept; nil where there is nothing, or another source's.
func (s snapshot) read() (*state, error) {
	if s.dir == "" {
		return nil, nil
	}
	data, err := durable.ReadFile(s.fs, s.path(".set"), maxSnapshotBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	st, h, err := decodeSnapshot(data)
	if err != nil {
		return nil, err
	}
	if h.Identity != s.identity {
		return nil, nil
	}
	if age, err := durable.ReadFile(s.fs, s.path(".age"), 4096); err == nil {
		var a snapshotAge
		if json.Unmarshal(age, &a) == nil && a.ID == h.ID && a.AsOf.After(st.asOf) {
			st.asOf = a.AsOf
		}
	}
	return st, nil
}

// decodeSnapshot is the reverse of write.
func decodeSnapshot(data []byte) (*state, snapshotHeader, error) {
	var h snapshotHeader
	if len(data) < 4 {
		return nil, h, fmt.Errorf("%w: too short", errSnapshot)
	}
	body, sum := data[:len(data)-4], binary.BigEndian.Uint32(data[len(data)-4:])
	if castagnoli(body) != sum {
		return nil, h, fmt.Errorf("%w: checksum", errSnapshot)
	}
	head, arena, ok := bytes.Cut(body, []byte{'\n'})
	if !ok {
		return nil, h, fmt.Errorf("%w: no header", errSnapshot)
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return nil, h, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if h.Version != 1 || h.Bytes != len(arena) {
		return nil, h, fmt.Errorf("%w: version %d, %d bytes", errSnapshot, h.Version, len(arena))
	}
	b := newBuilder()
	for off := 0; off < len(arena); {
		n, w := binary.Uvarint(arena[off:])
		if w <= 0 || n > uint64(len(arena)-off-w) {
			return nil, h, fmt.Errorf("%w: key at %d", errSnapshot, off)
		}
		off += w
		if err := b.add(arena[off : off+int(n)]); err != nil {
			return nil, h, err
		}
		off += int(n)
	}
	st := &state{keys: b.done(), asOf: h.AsOf, whole: h.Whole, saved: h.ID}
	if st.keys.len() != h.Keys {
		return nil, h, fmt.Errorf("%w: %d keys of %d", errSnapshot, st.keys.len(), h.Keys)
	}
	for _, t := range h.Tables {
		r := newTableReader(t.Format)
		n := 0
		for line := range strings.Lines(t.Source) {
			n++
			r.line(n, strings.TrimSuffix(line, "\n"))
		}
		tab, err := r.done()
		if err != nil {
			return nil, h, fmt.Errorf("%w: %w", errSnapshot, err)
		}
		st.tables = append(st.tables, tab)
	}
	return st, h, nil
}

// fingerprint identifies what a source is asked for, not how often.
func fingerprint(c SourceConfig, r rules) string {
	id := struct {
		Kind, Path, Format, Driver, Query, URL, Base, Filter, Key, Address string
		Command, Attributes, Bare                                          []string
		Case                                                               bool
	}{
		c.Kind, c.Path, c.Format, c.Driver, c.Query, c.URL, c.Base, c.Filter, c.Key, c.Address,
		c.Command, c.Attributes, c.BareDomains, r.caseSensitive,
	}
	b, err := json.Marshal(id)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
