package queue

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"
)

// ident is a queue id: 48 bits of milliseconds since 1970, a 16-bit count within
// the millisecond, 64 random bits. Its text is 26 letters and digits that sort
// like the bits.
type ident [16]byte

const (
	identText = 26
	// identDigits leaves out I, L, O and U.
	identDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

// String writes 130 bits in groups of five, the first two of them zero.
func (id ident) String() string {
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	var text [identText]byte
	for i := identText - 1; i >= 0; i-- {
		text[i] = identDigits[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(text[:])
}

// parseIdent reads the text of an id, in either case.
func parseIdent(text string) (ident, bool) {
	var id ident
	if len(text) != identText || text[0] > '7' {
		return id, false
	}
	var hi, lo uint64
	for i := range len(text) {
		d, ok := identDigit(text[i])
		if !ok {
			return id, false
		}
		hi = hi<<5 | lo>>59
		lo = lo<<5 | d
	}
	binary.BigEndian.PutUint64(id[:8], hi)
	binary.BigEndian.PutUint64(id[8:], lo)
	return id, true
}

func identDigit(c byte) (uint64, bool) {
	if c >= 'a' && c <= 'z' {
		c -= 'a' - 'A'
	}
	for d := range len(identDigits) {
		if identDigits[d] == c {
			return uint64(d), true
		}
	}
	return 0, false
}

// idents makes ids, each greater than the one before, also when the clock is set
// back.
type idents struct {
	mu   sync.Mutex
	last uint64
}

func (g *idents) next(now time.Time) ident {
	stamp := uint64(max(now.UnixMilli(), 0)) << 16
	random := rand.Uint64()
	g.mu.Lock()
	if stamp <= g.last {
		stamp = g.last + 1
	}
	g.last = stamp
	g.mu.Unlock()
	var id ident
	binary.BigEndian.PutUint64(id[:8], stamp)
	binary.BigEndian.PutUint64(id[8:], random)
	return id
}
