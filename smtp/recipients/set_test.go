package recipients

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func build(t *testing.T, keys ...string) *set {
	t.Helper()
	b := newBuilder()
	for _, k := range keys {
		if err := b.add([]byte(k)); err != nil {
			t.Fatal(err)
		}
	}
	return b.done()
}

// The set against a map.
func TestSetProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOf(rapid.StringN(0, 200, -1)).Draw(t, "keys")
		probes := rapid.SliceOf(rapid.StringN(0, 200, -1)).Draw(t, "probes")
		model := make(map[string]bool)
		b := newBuilder()
		for _, k := range keys {
			model[k] = true
			if err := b.add([]byte(k)); err != nil {
				t.Fatal(err)
			}
		}
		s := b.done()
		if s.len() != len(model) {
			t.Fatalf("%d keys, want %d", s.len(), len(model))
		}
		for _, k := range append(keys, probes...) {
			if s.has([]byte(k)) != model[k] {
				t.Fatalf("%q: %t", k, !model[k])
			}
		}
		var all []string
		for k := range s.all() {
			all = append(all, string(k))
		}
		slices.Sort(all)
		if !slices.Equal(all, slices.Sorted(maps.Keys(model))) {
			t.Fatalf("all: %q", all)
		}
	})
}

func TestSetEqual(t *testing.T) {
	t.Parallel()
	a := build(t, "a", "b")
	for _, tc := range []struct {
		s    *set
		want bool
	}{{build(t, "b", "a", "a"), true}, {build(t, "a"), false}, {build(t, "a", "c"), false}, {nil, false}} {
		if a.equal(tc.s) != tc.want {
			t.Errorf("%v", tc)
		}
	}
	if !(*set)(nil).equal(build(t)) || (*set)(nil).has([]byte("a")) {
		t.Error("the nil set is not empty")
	}
}

// Keys whose length takes two bytes survive the growth of the table.
func TestSetLongKeys(t *testing.T) {
	t.Parallel()
	var keys []string
	for i := range 500 {
		keys = append(keys, strings.Repeat("x", i)+fmt.Sprint(i))
	}
	s := build(t, keys...)
	for _, k := range keys {
		if !s.has([]byte(k)) {
			t.Fatalf("%.20s of %d bytes is missing", k, len(k))
		}
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A million addresses: exact both ways, in less than 200 MiB.
func TestMillion(t *testing.T) {
	const n = 1_000_000
	before := heap()
	b := newBuilder()
	key := func(kind string, i int) []byte { return fmt.Appendf(nil, "%s.%07d@department.example.com", kind, i) }
	for i := range n {
		if err := b.add(key("user", i)); err != nil {
			t.Fatal(err)
		}
	}
	s := b.done()
	used := (heap() - before) >> 20
	t.Logf("%d keys in %d MiB", s.len(), used)
	if s.len() != n || used > 200 {
		t.Errorf("%d keys in %d MiB", s.len(), used)
	}
	for i := range n {
		if !s.has(key("user", i)) {
			t.Fatalf("key %d is missing", i)
		}
		if s.has(key("none", i)) {
			t.Fatalf("key %d is a false positive", i)
		}
	}
}
