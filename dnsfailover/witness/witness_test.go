package witness

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"understudy/dnsfailover"
	"understudy/dnsfailover/arbitertest"
	"understudy/internal/peer"
)

// lab is a witness with the keys of its two sites.
type lab struct {
	store *Store
	addr  string
	key   *peer.Key
	sites map[dnsfailover.Site]*peer.Key
}

func newKey(t *testing.T) *peer.Key {
	t.Helper()
	k, err := peer.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openStore(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func start(t *testing.T) *lab {
	t.Helper()
	l := &lab{
		store: openStore(t, filepath.Join(t.TempDir(), "register.db")),
		key:   newKey(t), sites: map[dnsfailover.Site]*peer.Key{"a": newKey(t), "b": newKey(t)},
	}
	sites, err := ParseSites([]string{"a=" + l.sites["a"].Pin().String(), "b=" + l.sites["b"].Pin().String()})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(l.store, l.key, sites, Deps{}).Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return l
}

func (l *lab) client(t *testing.T, addr string, key *peer.Key, pin peer.Pin) *Client {
	t.Helper()
	c, err := New(Config{Address: addr, Pins: []string{pin.String()}, Timeout: 5 * time.Second}, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// drop forgets the register, as a lost disk does.
func (l *lab) drop(t *testing.T) {
	t.Helper()
	if err := l.store.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketRegister).Delete(keyNow) }); err != nil {
		t.Fatal(err)
	}
}

func nowhere(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

func TestConformance(t *testing.T) {
	l := start(t)
	arbitertest.Run(t, arbitertest.Lab{
		Client: func(t *testing.T, site dnsfailover.Site) dnsfailover.Arbiter {
			t.Helper()
			return l.client(t, l.addr, l.sites[site], l.key.Pin())
		},
		Drop: l.drop,
		Unreachable: func(t *testing.T) dnsfailover.Arbiter {
			t.Helper()
			return l.client(t, nowhere(t), l.sites["a"], l.key.Pin())
		},
		WrongKey: func(t *testing.T) dnsfailover.Arbiter { t.Helper(); return l.client(t, l.addr, newKey(t), l.key.Pin()) },
	})
}

func held(epoch uint64) dnsfailover.Register {
	return dnsfailover.Register{
		Epoch: epoch, Holder: "a", State: dnsfailover.Held, By: "a", Nonce: dnsfailover.NewNonce(), Config: "0badcafe", At: 1795540000,
	}
}

// TestAnotherWitness: a server without the pinned key is no witness, and is told
// nothing.
func TestAnotherWitness(t *testing.T) {
	l := start(t)
	c := l.client(t, l.addr, l.sites["a"], newKey(t).Pin())
	if _, err := c.Read(t.Context()); !errors.Is(err, dnsfailover.ErrBadKey) {
		t.Errorf("read: %v, want ErrBadKey", err)
	}
	err := c.CompareAndSwap(t.Context(), dnsfailover.Register{}, held(1), nil)
	if !errors.Is(err, dnsfailover.ErrBadKey) || errors.Is(err, dnsfailover.ErrUnknownOutcome) {
		t.Errorf("swap: %v, want ErrBadKey and nothing else", err)
	}
	if _, err := l.store.Read(); !errors.Is(err, dnsfailover.ErrMissing) {
		t.Errorf("the store: %v", err)
	}
}

// deaf is a witness that answers nothing after it has done it, for a while.
type deaf struct {
	addr string
	lose atomic.Int32
}

func newDeaf(t *testing.T, l *lab) *deaf {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &deaf{addr: ln.Addr().String()}
	server := NewServer(l.store, l.key, Sites{}, Deps{})
	pins := []peer.Pin{l.sites["b"].Pin()}
	config := peer.ServerTLS(l.key, func() []peer.Pin { return pins }, protocol)
	done := make(chan struct{})
	t.Cleanup(func() { _ = ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			tc := tls.Server(c, config)
			var q request
			if tc.Handshake() == nil { //nolint:noctx // ends with its client
				_, _ = tc.Write([]byte{welcome})
				if receive(tc, &q) == nil {
					a := server.answer("b", q)
					if d.lose.Add(-1) < 0 {
						_ = send(tc, a)
					}
				}
			}
			_ = tc.Close()
		}
	}()
	return d
}

func (d *deaf) loseAnswers(n int32) { d.lose.Store(n) }

// TestLostAnswer: the change is on the disk and its answer does not arrive.
func TestLostAnswer(t *testing.T) {
	l := start(t)
	first, second := held(1), held(2)
	direct := l.client(t, l.addr, l.sites["a"], l.key.Pin())
	if err := direct.CompareAndSwap(t.Context(), dnsfailover.Register{}, first, nil); err != nil {
		t.Fatal(err)
	}
	proxy := newDeaf(t, l)
	c := l.client(t, proxy.addr, l.sites["b"], l.key.Pin())
	proxy.loseAnswers(1)
	if err := c.CompareAndSwap(t.Context(), first, second, nil); err != nil {
		t.Fatalf("swap with a lost answer: %v", err)
	}
	if got, err := direct.Read(t.Context()); err != nil || got != second {
		t.Fatalf("the register is %q, %v", got, err)
	}
	// Answers stay away, and so do those to the question that would settle it.
	proxy.loseAnswers(10)
	if err := c.CompareAndSwap(t.Context(), second, held(3), nil); !errors.Is(err, dnsfailover.ErrUnknownOutcome) {
		t.Errorf("swap with no answers: %v, want ErrUnknownOutcome", err)
	}
}

func TestDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "register.db")
	s := openStore(t, path)
	if _, err := s.Read(); !errors.Is(err, dnsfailover.ErrMissing) {
		t.Errorf("a new file: %v, want ErrMissing", err)
	}
	first, second := held(1), held(2)
	for _, step := range []struct{ old, new dnsfailover.Register }{{dnsfailover.Register{}, first}, {first, second}} {
		if err := s.Swap(step.old, step.new); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v, want ErrLocked", err)
	}
	// What is on the disk now, without a proper end.
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	crashed := filepath.Join(t.TempDir(), "register.db")
	if err := os.WriteFile(crashed, image, 0o600); err != nil {
		t.Fatal(err)
	}
	after := openStore(t, crashed)
	if got, err := after.Read(); err != nil || got != second {
		t.Errorf("after a crash: %q, %v", got, err)
	}
	if h, err := after.History(); err != nil || len(h) != 2 || h[0] != first || h[1] != second {
		t.Errorf("history: %q, %v", h, err)
	}
}

func TestDamagedFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "register.db")
	s := openStore(t, path)
	if err := s.Swap(dnsfailover.Register{}, held(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range image[:3*os.Getpagesize()] {
		image[i] ^= 0x5a
	}
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(path); err == nil {
		r, err := s.Read()
		t.Errorf("a damaged file was opened: %q, %v", r, err)
		_ = s.Close()
	}
	kept, err := os.ReadFile(path)
	if err != nil || string(kept) != string(image) {
		t.Error("the damaged file was changed")
	}
}

// TestBrokenStoreSaysNothing: after a write that failed for a reason of the disk,
// nothing is answered until the file is opened again.
func TestBrokenStoreSaysNothing(t *testing.T) {
	l := start(t)
	first := held(1)
	if err := l.store.Swap(dnsfailover.Register{}, first); err != nil {
		t.Fatal(err)
	}
	disk := errors.New("no space left on device")
	if err := l.store.write(func(*bolt.Tx) error { return disk }); !errors.Is(err, ErrBroken) || !errors.Is(err, disk) {
		t.Fatalf("a failed write: %v", err)
	}
	c := l.client(t, l.addr, l.sites["a"], l.key.Pin())
	if got, err := c.Read(t.Context()); !errors.Is(err, dnsfailover.ErrUnreachable) {
		t.Errorf("read: %q, %v; want ErrUnreachable", got, err)
	}
	if err := c.CompareAndSwap(t.Context(), first, held(2), nil); !errors.Is(err, dnsfailover.ErrUnknownOutcome) {
		t.Errorf("swap: %v, want ErrUnknownOutcome", err)
	}
}

func TestRestore(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "register.db"))
	if err := s.Restore(held(8)); err != nil {
		t.Fatalf("restore into an empty store: %v", err)
	}
	for _, epoch := range []uint64{7, 8} {
		if err := s.Restore(held(epoch)); !errors.Is(err, dnsfailover.ErrRefused) {
			t.Errorf("restore epoch %d over 8: %v, want ErrRefused", epoch, err)
		}
	}
	if err := s.Restore(held(9)); err != nil {
		t.Errorf("restore a higher epoch: %v", err)
	}
	if got, err := s.Read(); err != nil || got.Epoch != 9 {
		t.Errorf("%q, %v", got, err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "register.db"))
	s.db.NoSync = true // of no matter here
	old := dnsfailover.Register{}
	for i := range historyKept + 20 {
		next := held(uint64(i + 1))
		if err := s.Swap(old, next); err != nil {
			t.Fatal(err)
		}
		old = next
	}
	h, err := s.History()
	if err != nil || len(h) != historyKept || h[len(h)-1] != old {
		t.Errorf("%d values, the last %q, %v", len(h), h[len(h)-1], err)
	}
}

func TestParseSites(t *testing.T) {
	a, b := newKey(t).Pin().String(), newKey(t).Pin().String()
	if s, err := ParseSites([]string{"a=" + a, "b=" + b}); err != nil || len(s) != 2 {
		t.Errorf("%v, %v", s, err)
	}
	for name, list := range map[string][]string{
		"none": nil, "one site": {"a=" + a}, "one key for two": {"a=" + a, "b=" + a}, "no site": {a, "b=" + b},
		"no pin": {"a=sha256:x", "b=" + b}, "three sites": {"a=" + a, "b=" + b, "c=" + newKey(t).Pin().String()},
	} {
		if s, err := ParseSites(list); err == nil {
			t.Errorf("%s: %v", name, s)
		}
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := Config{Address: "x", Pins: []string{"sha256:x"}, Timeout: time.Hour}.Validate()
	for _, key := range []string{"address:", "pins:", "timeout:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("no word of %s in: %v", key, err)
		}
	}
}

// FuzzAnswer: whatever a site sends, the register changes only from exactly its
// present value to a valid one.
func FuzzAnswer(f *testing.F) {
	s, err := Open(filepath.Join(f.TempDir(), "register.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	s.db.NoSync = true
	first := held(1)
	if err := s.Swap(dnsfailover.Register{}, first); err != nil {
		f.Fatal(err)
	}
	server := &Server{store: s, log: NewServer(s, mustKey(f), nil, Deps{}).log}
	f.Add([]byte(`{"op":"read"}`))
	f.Add([]byte(`{"op":"swap","old":"","new":"` + held(2).String() + `"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var q request
		if json.Unmarshal(in, &q) != nil {
			return
		}
		before, err := s.Read()
		if err != nil {
			t.Fatal(err)
		}
		a := server.answer("a", q)
		after, err := s.Read()
		if err != nil {
			t.Fatal(err)
		}
		if before != after && (a.Error != "" || q.Old != before.String() || q.New != after.String()) {
			t.Errorf("%s changed %q to %q", in, before, after)
		}
	})
}

func mustKey(f *testing.F) *peer.Key {
	f.Helper()
	k, err := peer.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	return k
}
