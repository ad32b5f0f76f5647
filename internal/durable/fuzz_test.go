package durable

import (
	"bytes"
	"testing"
)

// FuzzSegmentReader reads arbitrary bytes as a segment. Nothing may panic, loop, ask
// for more memory than the segment has, or hand out what was not sealed for its
// place; and reading twice must give the same.
// Minimizing these inputs takes longer than fuzzing: use -fuzzminimizetime=20x.
func FuzzSegmentReader(f *testing.F) {
	h := segmentHeader{name: "fuzz", id: 7, key: [keyBytes]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, sizeBytes: minSegmentBytes}
	s := &segment{id: h.id, header: h, seal: newSeal(h), end: dataStart}
	w := &writer{}
	image := append(h.encode(), h.encode()...)
	for i := range 4 {
		var batch []*request
		for j := range i + 1 {
			batch = append(batch, newRequest(byte(j), [][]byte{bytes.Repeat([]byte{byte(i), byte(j)}, 700*i)}))
		}
		size := int64(0)
		for _, r := range batch {
			size += DiskBytes(int(r.size))
		}
		w.encode(s, batch, size, 0)
		s.batches++
		s.end += batchSize(size)
		image = append(image, w.buf...)
	}
	f.Add(image, int64(0), int64(0))
	f.Add(image, int64(0), int64(len(image)))
	f.Add(image[:len(image)-5000], int64(9000), int64(len(image)))
	f.Add(append(bytes.Clone(image), make([]byte, 20000)...), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, data []byte, from, end int64) {
		if len(data) > 1<<20 {
			return
		}
		if got, err := decodeSegmentHeader(data); err == nil {
			_ = got.encode()
		}
		scan := func() (scanResult, [][]byte) {
			var out [][]byte
			last := int64(-1)
			sc := &segmentScan{
				r: bytes.NewReader(data), seal: s.seal, id: 7,
				size: int64(len(data)), limit: int64(len(data)), from: from,
			}
			if end >= dataStart && end <= 1<<20 {
				sc.limit, sc.known, sc.clean = roundUp(end), true, roundUp(end)
			}
			sc.fn = func(r Record) error {
				if r.Pos.Offset <= last || r.Pos.Offset < from {
					t.Errorf("record at %d after %d, from %d", r.Pos.Offset, last, from)
				}
				last = r.Pos.Offset
				if !bytes.Equal(data[r.Pos.Offset+recordHeaderBytes:][:len(r.Payload)], r.Payload) {
					t.Error("not the bytes of the file")
				}
				out = append(out, bytes.Clone(r.Payload))
				return nil
			}
			res, err := sc.scan()
			if err != nil {
				t.Error(err)
			}
			if int64(cap(sc.buf)) > max(sc.limit, 256*blockBytes) {
				t.Errorf("buffer of %d bytes for %d", cap(sc.buf), sc.limit)
			}
			return res, out
		}
		a, recordsA := scan()
		b, recordsB := scan()
		if a.end != b.end || a.records != b.records || len(recordsA) != len(recordsB) {
			t.Errorf("%+v, then %+v", a, b)
		}
	})
}
