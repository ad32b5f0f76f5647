package queue

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/smtp"
)

const killDir = "UNDERSTUDY_QUEUE_KILL_DIR"

// killBody is the body of the n-th message of a writer.
func killBody(round, writer, n int) string {
	return strings.Repeat(fmt.Sprintf("%d/%d/%d ", round, writer, n), 1+(n%50)*(n%37))
}

// TestMain is also the process that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		os.Exit(killChild(dir))
	}
	os.Exit(m.Run())
}

// killChild stores and delivers until it is killed.
func killChild(dir string) int {
	var round int
	if _, err := fmt.Sscan(os.Getenv(killDir+"_ROUND"), &round); err != nil {
		return 2
	}
	cfg := testConfig(dir)
	cfg.SpillBytes = 8 << 10
	s, err := Open(cfg, Deps{})
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	var mu sync.Mutex
	say := func(word, id, body string) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintf(os.Stdout, "%s %s %s\n", word, id, body)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				body := killBody(round, w, n)
				id, err := store(s, envelope("s@x.example", "a@y.example"), body)
				if err != nil {
					return
				}
				say("+", id, body)
			}
		})
	}
	wg.Go(func() {
		for {
			list, err := s.Take(context.Background(), "", 8)
			if err != nil {
				return
			}
			for i, d := range list {
				if i%2 == 0 {
					say("-", d.Envelope().ID, "")
					d.Done([]smtp.Result{result(0, smtp.Delivered, "ok")})
				} else {
					d.Done([]smtp.Result{result(0, smtp.Deferred, "busy")})
				}
			}
		}
	})
	wg.Wait()
	return 1 // only an error brings it here
}

// TestKill kills a process that stores and delivers, again and again over the same
// spool, and asks for every message that was answered.
func TestKill(t *testing.T) {
	t.Parallel()
	kills := 12
	if testing.Short() {
		kills = 2
	}
	dir := t.TempDir()
	stored, ended := map[string]string{}, map[string]bool{}
	for round := range kills {
		killOnce(t, dir, round, stored, ended)
	}
	r := start(t, testConfig(dir), Deps{})
	list, err := r.List(t.Context(), Selection{})
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, m := range list {
		have[m.ID] = true
	}
	lost := 0
	for id, body := range stored {
		switch {
		case !have[id] && !ended[id]:
			lost++
			t.Errorf("%s was answered and is gone", id)
		case have[id]:
			if got := r.body(id); got != "Received: test\r\n"+body {
				t.Errorf("%s has %d bytes, want %d", id, len(got), len(body)+16)
			}
		}
	}
	t.Logf("%d kills, %d messages answered, %d delivered, %d in the spool, %d lost", kills, len(stored), len(ended), len(list), lost)
	if len(stored) == 0 {
		t.Error("nothing was stored")
	}
}

func killOnce(t *testing.T, dir string, round int, stored map[string]string, ended map[string]bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), killDir+"="+dir, fmt.Sprintf("%s_ROUND=%d", killDir, round))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReaderSize(out, 1<<20)
	var stop *time.Timer
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			break // also a line that the kill has cut
		}
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		id, body, _ := strings.Cut(rest, " ")
		switch word {
		case "+":
			stored[id] = body
		case "-":
			ended[id] = true
		}
		if stop == nil {
			stop = time.AfterFunc(time.Duration(1+rand.IntN(200))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err == nil || stop == nil {
		t.Errorf("round %d: the child ended by itself: %v", round, err)
	}
}
