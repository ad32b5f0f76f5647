package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"understudy/internal/twin"
)

// TestTwinsDiffer: a difference is in the status, an alarm and a reason against
// a switchover; a site that does not answer is none of them by itself.
func TestTwinsDiffer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "users")
	items := []twin.Item{{Name: "users", Files: []string{file}}}
	make1 := func(items ...twin.Item) *twin.Checker {
		c, err := twin.New(twin.Config{Items: items, Interval: time.Minute}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	there := twins{checker: make1(items...)}
	alarms := &quietAlarms{raised: map[string]string{}}
	var fault error
	here := twins{checker: make1(items...), alarms: alarms, call: func(ctx context.Context, method string, in, out any) error {
		if method != methodTwin || fault != nil {
			return fault
		}
		salt, _ := in.(string)
		marks, err := there.answer(ctx, salt)
		for _, m := range marks {
			for name := range m.Hashes {
				if text, _ := os.ReadFile(file); string(text) == "other" {
					m.Hashes[name] = "0"
				}
			}
		}
		*out.(*map[string]twin.Mark) = marks
		return err
	}}
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("same")
	if r := here.gates(t.Context()); len(r) > 0 || !strings.HasPrefix(here.line(), "the sites are alike") {
		t.Errorf("alike: %v, %s", r, here.line())
	}
	write("other")
	if r := here.gates(t.Context()); len(r) != 1 || r[0] != "users "+file+" differs" {
		t.Errorf("reasons %v", r)
	}
	if !strings.Contains(here.line(), "DIFFERENT: users "+file+" differs") || alarms.raised["twin"] == "" {
		t.Errorf("status %q, alarms %v", here.line(), alarms.raised)
	}
	fault = errors.New("unknown method")
	if r := here.gates(t.Context()); len(r) != 1 || !strings.Contains(r[0], "not compared") {
		t.Errorf("asked for and not compared: %v", r)
	}
	if !strings.Contains(here.line(), "DIFFERENT") || !strings.Contains(here.line(), "unknown method") {
		t.Errorf("after a failure: %q", here.line())
	}
	here.checker = make1()
	if r := here.gates(t.Context()); len(r) > 0 {
		t.Errorf("nothing was asked for: %v", r)
	}
	fault, here.checker = nil, make1(items...)
	write("same")
	if _, err := here.compare(t.Context()); err != nil || alarms.raised["twin"] != "" {
		t.Errorf("alike again: %v, %v", err, alarms.raised)
	}
}

func TestTwinsAreComparedFromTimeToTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := twin.New(twin.Config{Interval: time.Minute}, nil)
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan time.Time, 100)
		tw := &twins{checker: c, alarms: &quietAlarms{raised: map[string]string{}}, call: func(context.Context, string, any, any) error {
			asked <- time.Now()
			return nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tw.run(time.Minute, func() bool { return true })(ctx) }()
		first, second := <-asked, <-asked
		if d := second.Sub(first); d != time.Minute {
			t.Errorf("compared after %s", d)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
