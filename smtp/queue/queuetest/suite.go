package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/smtp"
)

// Subject is a queue under test.
type Subject struct {
	Queue smtp.Queue
	// Stored returns what was committed under id.
	Stored func(id string) (Message, bool)
	// SetFull makes the queue as good as full, or undoes it.
	SetFull func(full bool)
}

// Run runs the conformance suite of smtp.Queue; open is called once for every
// part of it and returns an empty queue.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	t.Helper()
	parts := map[string]func(*testing.T, Subject){
		"commit stores every byte":                  commitStores,
		"sizes around the limits":                   sizes,
		"open reads what was written":               openReads,
		"discard leaves nothing":                    discard,
		"commit happens once":                       once,
		"a cancelled context stores nothing":        cancelled,
		"a full queue says so":                      full,
		"the envelope may be changed afterwards":    envelopeIsCopied,
		"ids are unique, ordered and stay the same": ids,
		"concurrent commits":                        concurrent,
	}
	for name, part := range parts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			part(t, open(t))
		})
	}
}

// Envelope returns an envelope with every field set.
func Envelope() *smtp.Envelope {
	return &smtp.Envelope{
		Received: time.Now(),
		Client: smtp.Client{
			Addr: netip.MustParseAddrPort("192.0.2.7:40000"), HELO: "client.example.org",
			ReverseName: "client.example.org", Protocol: "ESMTPS", TLS: "TLS1.3 TLS_AES_128_GCM_SHA256",
		},
		Sender: "Sender@example.org",
		Recipients: []smtp.Recipient{
			{Address: "one@example.com", ORCPT: "rfc822;one@example.com", Notify: []string{"FAILURE", "DELAY"}},
			{Address: "Two@Example.COM"},
		},
		Body: "8BITMIME", SMTPUTF8: true, Return: "HDRS", EnvelopeID: "QQ314159",
		Verdict: &smtp.Verdict{Engine: "suite", Score: 1.5, Required: 15, Symbols: []smtp.Symbol{{Name: "A", Score: 1.5}}},
	}
}

const header = "Received: from client.example.org by test;\r\n\tTue, 24 Nov 2026 12:00:00 +0000\r\n"

func create(t *testing.T, q smtp.Queue, hint int64, body string) smtp.Draft {
	t.Helper()
	d, err := q.Create(t.Context(), hint)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	for rest := body; rest != ""; {
		n := min(len(rest), 32<<10)
		if _, err := d.Write([]byte(rest[:n])); err != nil {
			t.Fatalf("Write: %v", err)
		}
		rest = rest[n:]
	}
	return d
}

func check(t *testing.T, s Subject, id, body string, want *smtp.Envelope) {
	t.Helper()
	got, ok := s.Stored(id)
	if !ok {
		t.Fatalf("message %s was answered nil and is not there", id)
	}
	if !bytes.Equal(got.Body, []byte(header+body)) {
		t.Fatalf("message %s: %d bytes stored, want %d, or they differ", id, len(got.Body), len(header)+len(body))
	}
	env := got.Envelope
	if env.ID != id || env.SizeBytes != int64(len(header)+len(body)) {
		t.Errorf("stored envelope has id %q and size %d, want %q and %d", env.ID, env.SizeBytes, id, len(header)+len(body))
	}
	if env.Sender != want.Sender || env.Client != want.Client || len(env.Recipients) != len(want.Recipients) ||
		env.Recipients[0].ORCPT != want.Recipients[0].ORCPT || env.Recipients[1].Address != want.Recipients[1].Address ||
		!env.Received.Equal(want.Received) || env.Body != want.Body || env.Return != want.Return ||
		env.Verdict == nil || env.Verdict.Score != want.Verdict.Score {
		t.Errorf("stored envelope differs: %+v, want %+v", env, want)
	}
}

func commitStores(t *testing.T, s Subject) {
	t.Helper()
	for name, body := range map[string]string{
		"short": "Subject: a\r\n\r\nb\r\n", "empty": "", "no newline at the end": "Subject: a\r\n\r\nb",
		"binary": "Subject: a\r\n\r\n\x00\x01\xff\n\r.\r\n..\r\n",
	} {
		d := create(t, s.Queue, 0, body)
		env := Envelope()
		if err := d.Commit(t.Context(), env, []byte(header)); err != nil {
			t.Fatalf("%s: Commit: %v", name, err)
		}
		if env.ID != d.ID() || env.SizeBytes != int64(len(header)+len(body)) {
			t.Errorf("%s: Commit set id %q and size %d", name, env.ID, env.SizeBytes)
		}
		check(t, s, d.ID(), body, env)
	}
}

func sizes(t *testing.T, s Subject) {
	t.Helper()
	line := strings.Repeat("0123456789abcde", 5) + "\r\n"
	for _, n := range []int{1, 4095, 4096, 4097, 65 << 10, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 17} {
		body := strings.Repeat(line, n/len(line)+1)[:n]
		for _, hint := range []int64{0, int64(n), 10 << 20} {
			d := create(t, s.Queue, hint, body)
			env := Envelope()
			if err := d.Commit(t.Context(), env, []byte(header)); err != nil {
				t.Fatalf("%d bytes: Commit: %v", n, err)
			}
			check(t, s, d.ID(), body, env)
		}
	}
}

func openReads(t *testing.T, s Subject) {
	t.Helper()
	for _, n := range []int{10, 2 << 20} {
		body := strings.Repeat("x", n)
		d := create(t, s.Queue, 0, body)
		for range 2 {
			r, err := d.Open()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != body {
				t.Fatalf("Open of %d bytes read %d, %v", n, len(got), err)
			}
			if _, err := r.Seek(3, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || len(got) != n-3 {
				t.Fatalf("after Seek: %d bytes, %v", len(got), err)
			}
		}
		if _, err := d.Write([]byte("tail")); err != nil {
			t.Fatal(err)
		}
		env := Envelope()
		if err := d.Commit(t.Context(), env, []byte(header)); err != nil {
			t.Fatal(err)
		}
		check(t, s, d.ID(), body+"tail", env)
	}
}

func discard(t *testing.T, s Subject) {
	t.Helper()
	for _, n := range []int{10, 2 << 20} {
		d := create(t, s.Queue, 0, strings.Repeat("x", n))
		d.Discard()
		d.Discard()
		if _, ok := s.Stored(d.ID()); ok {
			t.Error("a discarded draft was stored")
		}
		if err := d.Commit(t.Context(), Envelope(), nil); err == nil {
			t.Error("Commit after Discard returned nil")
		}
		if _, ok := s.Stored(d.ID()); ok {
			t.Error("a discarded draft was stored by Commit")
		}
	}
}

func once(t *testing.T, s Subject) {
	t.Helper()
	d := create(t, s.Queue, 0, "body")
	env := Envelope()
	if err := d.Commit(t.Context(), env, []byte(header)); err != nil {
		t.Fatal(err)
	}
	d.Discard()
	check(t, s, d.ID(), "body", env)
	if err := d.Commit(t.Context(), Envelope(), nil); err == nil {
		t.Error("the second Commit returned nil")
	}
	if _, err := d.Write([]byte("x")); err == nil {
		t.Error("Write after Commit returned nil")
	}
	check(t, s, d.ID(), "body", env)
}

func cancelled(t *testing.T, s Subject) {
	t.Helper()
	d := create(t, s.Queue, 0, "body")
	defer d.Discard()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Commit(ctx, Envelope(), nil); err == nil {
		t.Fatal("Commit with a cancelled context returned nil")
	}
	if _, ok := s.Stored(d.ID()); ok {
		t.Error("the message is stored all the same")
	}
}

func full(t *testing.T, s Subject) {
	t.Helper()
	if err := s.Queue.Room(1000); err != nil {
		t.Fatalf("Room of an empty queue: %v", err)
	}
	d := create(t, s.Queue, 0, "body")
	s.SetFull(true)
	if err := s.Queue.Room(0); !errors.Is(err, smtp.ErrFull) {
		t.Errorf("Room = %v, want ErrFull", err)
	}
	if other, err := s.Queue.Create(t.Context(), 0); !errors.Is(err, smtp.ErrFull) {
		t.Errorf("Create = %v, want ErrFull", err)
		if err == nil {
			other.Discard()
		}
	}
	if err := d.Commit(t.Context(), Envelope(), nil); !errors.Is(err, smtp.ErrFull) {
		t.Errorf("Commit = %v, want ErrFull", err)
	}
	if _, ok := s.Stored(d.ID()); ok {
		t.Error("a message that was answered ErrFull is stored")
	}
	s.SetFull(false)
	env := Envelope()
	d = create(t, s.Queue, 0, "body")
	if err := d.Commit(t.Context(), env, []byte(header)); err != nil {
		t.Fatalf("Commit after space came back: %v", err)
	}
	check(t, s, d.ID(), "body", env)
}

func envelopeIsCopied(t *testing.T, s Subject) {
	t.Helper()
	d := create(t, s.Queue, 0, "body")
	env, want := Envelope(), Envelope()
	want.Received = env.Received
	if err := d.Commit(t.Context(), env, []byte(header)); err != nil {
		t.Fatal(err)
	}
	env.Sender, env.Recipients[1].Address = "changed", "changed"
	check(t, s, d.ID(), "body", want)
}

func ids(t *testing.T, s Subject) {
	t.Helper()
	last := ""
	for range 200 {
		d, err := s.Queue.Create(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		id := d.ID()
		if id <= last || id != d.ID() {
			t.Fatalf("id %q came after %q", id, last)
		}
		if strings.Trim(id, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "" {
			t.Fatalf("id %q has other characters than letters and digits", id)
		}
		last = id
		d.Discard()
	}
}

func concurrent(t *testing.T, s Subject) {
	t.Helper()
	const writers, each = 16, 8
	type done struct {
		id, body string
		env      *smtp.Envelope
	}
	var mu sync.Mutex
	var all []done
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				body := strings.Repeat(fmt.Sprintf("%d/%d ", w, i), 1+i*w*7)
				d, err := s.Queue.Create(t.Context(), int64(len(body)))
				if err != nil {
					t.Error(err)
					return
				}
				env := Envelope()
				_, werr := d.Write([]byte(body))
				if err := errors.Join(werr, d.Commit(t.Context(), env, []byte(header))); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				all = append(all, done{d.ID(), body, env})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, m := range all {
		check(t, s, m.id, m.body, m.env)
	}
}
