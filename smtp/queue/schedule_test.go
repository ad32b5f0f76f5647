package queue

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestScheduleWaits(t *testing.T) {
	t.Parallel()
	s := Schedule{First: 5 * time.Minute, Max: time.Hour}
	for attempt, want := range map[int]time.Duration{
		0: 5 * time.Minute, 1: 5 * time.Minute, 2: 10 * time.Minute, 3: 20 * time.Minute, 4: 40 * time.Minute,
		5: time.Hour, 6: time.Hour, 1 << 30: time.Hour,
	} {
		if got := s.Wait(attempt, 0); got != want {
			t.Errorf("attempt %d waits %v, want %v", attempt, got, want)
		}
		if got := s.Wait(attempt, 1); got != want-want/4 {
			t.Errorf("attempt %d with full jitter waits %v, want %v", attempt, got, want-want/4)
		}
	}
}

func TestScheduleProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := Schedule{
			First: time.Duration(rapid.Int64Range(1, 1<<62).Draw(t, "first")),
			Max:   time.Duration(rapid.Int64Range(1, 1<<62).Draw(t, "max")),
		}
		attempt := rapid.IntRange(-3, 200).Draw(t, "attempt")
		jitter := rapid.Float64Range(-2, 2).Draw(t, "jitter")
		wait := s.Wait(attempt, jitter)
		if wait <= 0 || wait > s.Max {
			t.Fatalf("wait %v is not in (0, %v]", wait, s.Max)
		}
		if low := min(s.First, s.Max); wait < low-low/4-1 {
			t.Fatalf("wait %v is shorter than three quarters of %v", wait, low)
		}
		if next := s.Wait(attempt+1, jitter); next < wait {
			t.Fatalf("attempt %d waits %v, the next %v", attempt, wait, next)
		}
	})
}

func TestClockSurvivesJumps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		time.Sleep(time.Minute) //nolint:forbidigo // the bubble's time
		now := time.Now().UnixNano()
		const limit = time.Hour
		for name, x := range map[string]struct {
			wall int64
			want time.Duration
		}{
			"in ten minutes":         {now + int64(10*time.Minute), 10 * time.Minute},
			"the clock was set back": {now + int64(1000*time.Hour), limit},
		} {
			if got := time.Duration(c.instant(x.wall, limit) - c.now()); got != x.want {
				t.Errorf("%s: due in %v, want %v", name, got, x.want)
			}
		}
		for name, wall := range map[string]int64{"unset": 0, "past": now - 1, "the clock was set forward": 1} {
			if got := c.instant(wall, limit); got != 0 {
				t.Errorf("%s: instant %d, want 0", name, got)
			}
		}
		if got := c.wall(c.now() + int64(time.Minute)); time.Until(got) != time.Minute {
			t.Errorf("wall is %v away", time.Until(got))
		}
	})
}

func TestIdent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var a, b ident
		copy(a[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "a"))
		copy(b[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "b"))
		back, ok := parseIdent(a.String())
		if !ok || back != a {
			t.Fatalf("%x became %x by way of %s", a, back, a)
		}
		if (a.String() < b.String()) != (string(a[:]) < string(b[:])) {
			t.Fatalf("%s and %s sort otherwise than their bits", a, b)
		}
	})
	for _, bad := range []string{"", "0", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "0000000000000000000000000U", "../../etc/passwd0000000000"} {
		if _, ok := parseIdent(bad); ok {
			t.Errorf("%q was taken for an id", bad)
		}
	}
	var g idents
	last := g.next(time.Unix(2000, 0)).String()
	for _, at := range []int64{2000, 1000, -5, 2001} {
		next := g.next(time.Unix(at, 0)).String()
		if next <= last {
			t.Errorf("%s after %s with the clock at %d", next, last, at)
		}
		last = next
	}
}

func TestGlob(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		pattern, text string
		want          bool
	}{
		{"a@b.example", "A@B.Example", true},
		{"a@b.example", "aa@b.example", false},
		{"*@b.example", "x@b.example", true},
		{"*", "", true},
		{"", "", true},
		{"", "a", false},
		{"a*c*e", "abcde", true},
		{"a*c*e", "abcd", false},
		{"*ab", "aab", true},
		{"?@x", "é@x", true},
		{"??@x", "é@x", false},
		{"[a]@x", "[a]@x", true},
		{"<>", "<>", true},
		{"**a", "ba", true},
		{"a?", "a", false},
	} {
		if got := glob(x.pattern, x.text); got != x.want {
			t.Errorf("glob(%q, %q) = %v", x.pattern, x.text, got)
		}
	}
}
