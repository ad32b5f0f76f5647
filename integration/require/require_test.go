package require_test

import (
	"fmt"
	"strings"
	"testing"

	"understudy/integration/require"
)

// recorder is a test that only notes how it ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper() {}

func (r *recorder) Skip(args ...any) {
	r.skipped = fmt.Sprint(args...)
	panic(r)
}

func (r *recorder) Fatal(args ...any) {
	r.failed = fmt.Sprint(args...)
	panic(r)
}

// ask runs need and returns how it ended.
func ask(t *testing.T, need func(testing.TB)) *recorder {
	t.Helper()
	r := &recorder{TB: t}
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(r) {
				panic(p)
			}
		}()
		need(r)
	}()
	return r
}

// TestMissing: what is missing skips a developer's test and fails CI's.
func TestMissing(t *testing.T) {
	need := func(tb testing.TB) {
		tb.Helper()
		require.Command(tb, "no-such-program")
	}
	t.Setenv("CI", "")
	if r := ask(t, need); r.skipped != "no-such-program is not installed" || r.failed != "" {
		t.Errorf("on a developer's machine: %+v", r)
	}
	t.Setenv("CI", "true")
	if r := ask(t, need); !strings.Contains(r.failed, "no-such-program is not installed") || r.skipped != "" {
		t.Errorf("in CI: %+v", r)
	}
}

// TestKernel: a missing kernel feature is excused everywhere, and says so.
func TestKernel(t *testing.T) {
	t.Setenv("CI", "true")
	r := ask(t, func(tb testing.TB) {
		tb.Helper()
		require.Kernel(tb, "time travel")
	})
	if !strings.HasPrefix(r.skipped, require.KernelReason+"time travel") || r.failed != "" {
		t.Errorf("%+v", r)
	}
}

// TestPresent: what is there costs nothing.
func TestPresent(t *testing.T) {
	t.Setenv("CI", "true")
	r := ask(t, func(tb testing.TB) {
		tb.Helper()
		require.Command(tb, "sh", "/bin/sh")
	})
	if r.skipped+r.failed != "" {
		t.Errorf("%+v", r)
	}
}
