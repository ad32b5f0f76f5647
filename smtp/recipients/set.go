package recipients

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"iter"
	"math"
)

// errTooLarge: offsets are 32 bits, so that a million keys take tens of MiB.
var errTooLarge = errors.New("recipient set exceeds 4 GiB")

// maxKeyBytes bounds one key: a local part of 64 and a domain of 255 octets
// (RFC 5321, section 4.5.3.1), with room for UTF-8.
const maxKeyBytes = 1024

// set is an exact, immutable set of keys: the keys one behind the other in one
// piece of memory, and a hash table of offsets into it. It may be read
// concurrently. The nil set is empty.
type set struct {
	seed  maphash.Seed
	arena []byte   // every key with its length, a uvarint, in front
	table []uint32 // offset+1; 0 is empty
	n     int
}

// len returns the number of keys.
func (s *set) len() int {
	if s == nil {
		return 0
	}
	return s.n
}

// has says whether key is in the set. It does not allocate.
func (s *set) has(key []byte) bool {
	if s == nil || s.n == 0 {
		return false
	}
	_, found := s.slot(key)
	return found
}

// slot returns where key is, or where it would be put.
func (s *set) slot(key []byte) (int, bool) {
	mask := uint64(len(s.table) - 1)
	for i := maphash.Bytes(s.seed, key) & mask; ; i = (i + 1) & mask {
		off := s.table[i]
		if off == 0 {
			return int(i), false
		}
		if string(s.at(off-1)) == string(key) {
			return int(i), true
		}
	}
}

func (s *set) at(off uint32) []byte {
	n, w := binary.Uvarint(s.arena[off:])
	start := uint64(off) + uint64(w)
	return s.arena[start : start+n]
}

// all yields the keys in the order in which they were added. They must not be kept.
func (s *set) all() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if s == nil {
			return
		}
		for off := 0; off < len(s.arena); {
			n, w := binary.Uvarint(s.arena[off:])
			end := off + w + int(n)
			if !yield(s.arena[off+w : end]) {
				return
			}
			off = end
		}
	}
}

// equal says whether both have the same keys.
func (s *set) equal(t *set) bool {
	if s.len() != t.len() {
		return false
	}
	for key := range s.all() {
		if !t.has(key) {
			return false
		}
	}
	return true
}

// builder makes a set. It belongs to one goroutine, and ends with done.
type builder struct{ s *set }

func newBuilder() *builder {
	return &builder{s: &set{seed: maphash.MakeSeed(), table: make([]uint32, 64)}}
}

// add puts key in, once.
func (b *builder) add(key []byte) error {
	s := b.s
	i, found := s.slot(key)
	if found {
		return nil
	}
	if len(s.arena)+len(key)+binary.MaxVarintLen32 > math.MaxUint32 {
		return errTooLarge
	}
	s.table[i] = uint32(len(s.arena)) + 1
	s.arena = binary.AppendUvarint(s.arena, uint64(len(key)))
	s.arena = append(s.arena, key...)
	s.n++
	if s.n > len(s.table)/2+len(s.table)/4 {
		b.grow()
	}
	return nil
}

// grow doubles the table.
func (b *builder) grow() {
	s := b.s
	s.table = make([]uint32, 2*len(s.table))
	var off uint32
	for key := range s.all() {
		i, _ := s.slot(key)
		s.table[i] = off + 1
		off += uint32(len(key) + uvarintBytes(len(key)))
	}
}

func uvarintBytes(n int) int {
	w := 1
	for ; n >= 0x80; n >>= 7 {
		w++
	}
	return w
}

func (b *builder) done() *set {
	s := b.s
	b.s = nil
	if cap(s.arena)-len(s.arena) > len(s.arena)/8 {
		s.arena = append(make([]byte, 0, len(s.arena)), s.arena...)
	}
	return s
}
