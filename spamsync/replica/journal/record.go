package journal

import (
	"encoding/binary"
	"encoding/json"
)

// Kinds of records.
const (
	kindBytes = 'B'
	kindGap   = 'G'
)

// how a run began.
type how uint8

const (
	// fresh: nothing is known about what came before.
	fresh how = iota
	// goesOn: where the run before ended; the server changed its id.
	goesOn
	// rewound: the server came back at an older place of the run before.
	rewound
)

// header says whose bytes a record holds. All of a run is in every record, because
// the first ones are removed some day.
type header struct {
	run      uint32
	how      how
	whole    bool // the first byte begins a command
	inTx     bool // before it
	db       int32
	at       int64 // Unix milliseconds
	runStart int64
	start    int64
	id       string
	parent   string
}

const (
	idBytes     = 40
	fixedBytes  = 4 + 1 + 1 + 4 + 8 + 8 + 8
	headerBytes = fixedBytes + 2*idBytes
)

const (
	flagWhole = 1 << iota
	flagInTx
)

func (h header) bytes() []byte {
	b := make([]byte, headerBytes)
	binary.BigEndian.PutUint32(b, h.run)
	b[4] = byte(h.how)
	if h.whole {
		b[5] |= flagWhole
	}
	if h.inTx {
		b[5] |= flagInTx
	}
	binary.BigEndian.PutUint32(b[6:], uint32(h.db))
	binary.BigEndian.PutUint64(b[10:], uint64(h.at))
	binary.BigEndian.PutUint64(b[18:], uint64(h.runStart))
	binary.BigEndian.PutUint64(b[26:], uint64(h.start))
	copy(b[fixedBytes:fixedBytes+idBytes], h.id)
	copy(b[fixedBytes+idBytes:], h.parent)
	return b
}

// parseHeader also returns the bytes after it, which are part of b.
func parseHeader(b []byte) (header, []byte, bool) {
	if len(b) < headerBytes || b[4] > byte(rewound) {
		return header{}, nil, false
	}
	h := header{
		run: binary.BigEndian.Uint32(b), how: how(b[4]), whole: b[5]&flagWhole != 0, inTx: b[5]&flagInTx != 0,
		db: int32(binary.BigEndian.Uint32(b[6:])), at: int64(binary.BigEndian.Uint64(b[10:])),
		runStart: int64(binary.BigEndian.Uint64(b[18:])), start: int64(binary.BigEndian.Uint64(b[26:])),
		id: text(b[fixedBytes : fixedBytes+idBytes]), parent: text(b[fixedBytes+idBytes : headerBytes]),
	}
	return h, b[headerBytes:], h.id != "" && h.start >= h.runStart && h.runStart >= 0
}

// text is a padded string.
func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func parseGap(b []byte) (Gap, bool) {
	var g Gap
	err := json.Unmarshal(b, &g)
	return g, err == nil
}
