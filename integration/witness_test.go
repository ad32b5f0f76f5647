package integration

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/dnsfailover"
	"understudy/dnsfailover/witness"
	"understudy/integration/lab"
	"understudy/internal/peer"
)

// TestWitnessDies: the witness is killed and keeps what it has answered; its file
// is lost, and it says so until an operator has restored the epoch.
func TestWitnessDies(t *testing.T) {
	t.Parallel()
	binary := lab.Binary(t)
	dir, addr := filepath.Join(lab.Dir(t), "w"), lab.FreeAddr(t)
	run := func(words ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), binary, append([]string{"witness", "--data", dir}, words...)...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	pin, err := run("init")
	if err != nil {
		t.Fatalf("init: %v: %s", err, pin)
	}
	keys := map[string]*peer.Key{}
	serve := []string{"witness", "--data", dir, "serve", "--listen", addr}
	for _, site := range []string{"a", "b"} {
		if keys[site], err = peer.NewKey(); err != nil {
			t.Fatal(err)
		}
		serve = append(serve, "--site", site+"="+keys[site].Pin().String())
	}
	client := func(site string) *witness.Client {
		c, err := witness.New(witness.Config{Address: addr, Pins: []string{pin}, Timeout: 3 * time.Second}, keys[site])
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := client("a"), client("b")
	var process *exec.Cmd
	start := func() {
		process = exec.CommandContext(context.WithoutCancel(t.Context()), binary, serve...)
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		lab.Wait(t, 10*time.Second, "the witness answers", func() error {
			if _, err := a.Read(t.Context()); errors.Is(err, dnsfailover.ErrUnreachable) {
				return err
			}
			return nil
		})
	}
	kill := func() {
		_ = process.Process.Kill()
		_ = process.Wait() // ends by the signal
	}
	start()
	t.Cleanup(func() { kill() })

	now := dnsfailover.Register{}
	for epoch := range 10 {
		next := registerValue(uint64(epoch+1), "a", dnsfailover.Held)
		if err := a.CompareAndSwap(t.Context(), now, next, nil); err != nil {
			t.Fatal(err)
		}
		now = next
		kill() // at once: it was answered, so it is kept
		if _, err := b.Read(t.Context()); !errors.Is(err, dnsfailover.ErrUnreachable) {
			t.Fatalf("read from nobody: %v", err)
		}
		start()
		if got, err := b.Read(t.Context()); err != nil || got != now {
			t.Fatalf("after a kill: %q, %v; want %q", got, err, now)
		}
	}

	kill()
	if err := os.Remove(filepath.Join(dir, "register.db")); err != nil {
		t.Fatal(err)
	}
	start()
	for _, c := range []*witness.Client{a, b} {
		if got, err := c.Read(t.Context()); !errors.Is(err, dnsfailover.ErrMissing) {
			t.Errorf("after the loss: %q, %v; want ErrMissing", got, err)
		}
	}
	if err := a.CompareAndSwap(t.Context(), now, registerValue(now.Epoch, "a", dnsfailover.Held), nil); !errors.Is(err, dnsfailover.ErrConflict) {
		t.Errorf("a change of what was lost: %v, want ErrConflict", err)
	}
	if out, err := run("restore", "--epoch", "11", "--holder", "a"); err == nil || !strings.Contains(out, "is the witness running?") {
		t.Errorf("restore beside a running witness: %v: %s", err, out)
	}
	kill()
	if out, err := run("restore", "--epoch", "11", "--holder", "a"); err != nil {
		t.Fatalf("restore: %v: %s", err, out)
	}
	start()
	if got, err := b.Read(t.Context()); err != nil || got.Epoch != 11 || got.Holder != "a" {
		t.Errorf("restored: %q, %v", got, err)
	}
}
