package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/smtp"
	"understudy/smtp/queue"
)

// deadSpool makes the spool of a daemon that has ended and returns its directory
// and the ids in it.
func deadSpool(t *testing.T, bodies ...string) (dir string, ids []string) {
	t.Helper()
	cfg := queue.DefaultConfig()
	cfg.Dir, cfg.ReserveBytes = filepath.Join(t.TempDir(), "spool"), 0
	cfg.SegmentBytes, cfg.SpillBytes, cfg.MemoryBytes = 1<<20, 64<<10, 1<<20
	s, err := queue.Open(cfg, queue.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for _, body := range bodies {
		d, err := s.Create(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(d, body); err != nil {
			t.Fatal(err)
		}
		env := &smtp.Envelope{
			Received: time.Now(), Sender: "ann@example.org", Recipients: []smtp.Recipient{{Address: "jane@example.com"}},
			Client: smtp.Client{Addr: netip.MustParseAddrPort("192.0.2.9:25"), HELO: "mail.example.org"},
		}
		if err := d.Commit(t.Context(), env, nil); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.ID())
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return cfg.Dir, ids
}

func TestOfflineReadsADeadDaemonsSpool(t *testing.T) {
	t.Parallel()
	body := "Subject: rescue\r\n\r\nme\r\n"
	dir, ids := deadSpool(t, body, body+"two\r\n")
	before := listing(t, dir)
	run := func(want int, args ...string) string {
		t.Helper()
		var out, errs strings.Builder
		a := &app{In: strings.NewReader(""), Out: &out, Err: &errs}
		if code := a.run(t.Context(), append([]string{"queue", "--offline", dir}, args...)); code != want {
			t.Fatalf("%v: exit %d, want %d: %s", args, code, want, errs.String())
		}
		return out.String()
	}
	if out := run(exitDone, "list"); !strings.Contains(out, ids[0]) || !strings.Contains(out, "-- 2 messages") {
		t.Errorf("list: %s", out)
	}
	var list []queue.Summary
	if err := json.Unmarshal([]byte(run(exitDone, "list", "--json", "--limit", "1")), &list); err != nil || len(list) != 1 || list[0].ID != ids[0] {
		t.Errorf("list --json: %+v, %v", list, err)
	}
	if out := run(exitDone, "show", ids[1]); !strings.Contains(out, "HELO mail.example.org") {
		t.Errorf("show: %s", out)
	}
	if out := run(exitDone, "show", ids[0], "--body"); out != body {
		t.Errorf("body: %q", out)
	}
	run(exitPartly, "show", "X9")
	run(exitPartly, "list", "X9")
	run(exitUsage, "delete", ids[0], "--yes")
	run(exitUsage, "export")
	file := filepath.Join(t.TempDir(), "rescue.tar")
	if out := run(exitDone, "export", "--all", "-o", file); !strings.Contains(out, "exported 2 messages") {
		t.Errorf("export: %s", out)
	}
	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), body) {
		t.Errorf("the archive lacks a body, %v", err)
	}
	if after := listing(t, dir); after != before {
		t.Errorf("the spool was changed:\n%s\nwas\n%s", after, before)
	}
}

// listing describes the files of a directory.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // a directory
		}
		fmt.Fprintf(&b, "%s %x\n", e.Name(), sha256.Sum256(data))
	}
	return b.String()
}
