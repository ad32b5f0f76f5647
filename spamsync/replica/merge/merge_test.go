package merge_test

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"understudy/spamsync/replica/merge"
	"understudy/spamsync/replica/stream"
)

// step is one operation of a story.
type step struct {
	Op    string
	AtB   bool
	D     int
	Class string
	N     int64
}

// on does it, and says whether the site took it.
func (s step) on(x *site, at int64) bool {
	x.tb.Helper()
	switch s.Op {
	case "learn":
		return x.learn(s.D, s.Class, at)
	case "teach":
		return x.teach(s.D, s.Class, at)
	case "forget":
		return x.teach(s.D, "", at)
	case "grey":
		x.grey("rg", s.D, at)
		x.grey("us:g:", s.D, at)
	case "counter":
		x.counter(s.D, s.N, at)
	case "fuzzy":
		x.fuzzy(s.D, s.N, at)
	case "rate":
		x.rate(s.D, at)
	case "reputation":
		x.reputation(s.D, float64(s.N)/3, at)
	case "neural":
		x.do("SADD", "rn_"+strconv.Itoa(s.D%2)+"_spam_set", "vector"+strconv.FormatInt(s.N, 10))
	case "history":
		x.do("LPUSH", "rs_history"+strconv.FormatBool(s.AtB)+"_zst", "entry"+strconv.FormatInt(at, 10))
	default:
		x.tb.Fatal(s.Op)
	}
	return true
}

func drawStep(ops ...string) *rapid.Generator[step] {
	return rapid.Custom(func(t *rapid.T) step {
		return step{
			Op: rapid.SampledFrom(ops).Draw(t, "op"), AtB: rapid.Bool().Draw(t, "at b"), D: rapid.IntRange(0, 7).Draw(t, "d"),
			Class: rapid.SampledFrom([]string{"spam", "ham"}).Draw(t, "class"), N: rapid.Int64Range(1, 9).Draw(t, "n"),
		}
	})
}

// What two sites did after the fork gives the same state whichever is merged into
// the other, and merging again changes nothing.
func TestEitherWayRound(t *testing.T) {
	t.Parallel()
	a1, b1, a2, b2 := newSite(t, "a"), newSite(t, "b"), newSite(t, "a"), newSite(t, "b")
	all := []*site{a1, b1, a2, b2}
	ops := drawStep("learn", "teach", "teach", "forget", "grey", "counter", "fuzzy", "rate", "reputation", "neural", "history")
	rapid.Check(t, func(rt *rapid.T) {
		base := rapid.SliceOfN(ops, 0, 10).Draw(rt, "base")
		story := rapid.SliceOfN(ops, 0, 30).Draw(rt, "story")
		for _, s := range all {
			s.do("FLUSHALL")
			s.do("SADD", "BAYES_SPAM_keys", "RS") // not an empty home
		}
		at := int64(1000)
		for _, st := range base {
			for _, s := range all {
				st.on(s, at)
			}
			at++
		}
		forkA, forkB := a1.now(), b2.now()
		for _, st := range story {
			for _, s := range all {
				if st.AtB == (s.name == "b") {
					st.on(s, at)
				}
			}
			at++
		}
		report, err := a1.mergeInto(b1, forkA)
		if err != nil {
			rt.Fatal(err)
		}
		if report.UnknownCommands > 0 || len(report.Notes) > 0 {
			rt.Errorf("unknown %v, notes %q", report.Unknown, report.Notes)
		}
		if _, err := b2.mergeInto(a2, forkB); err != nil {
			rt.Fatal(err)
		}
		got := b1.state()
		if diff := cmp.Diff(got, a2.state()); diff != "" {
			rt.Fatalf("a into b (-) and b into a (+) differ:\n%s\nreport %+v", diff, report)
		}
		again, err := a1.mergeInto(b1, forkA)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(got, b1.state()); diff != "" || again.Batches > 0 && again.Commands > 0 {
			rt.Fatalf("merging again (%+v) changed:\n%s", again, diff)
		}
	})
}

// A merge gives what one Redis would have, had it seen everything in order.
func TestAsOneRedis(t *testing.T) {
	t.Parallel()
	a, b, one := newSite(t, "a"), newSite(t, "b"), newSite(t, "one")
	ops := drawStep("learn", "teach", "grey", "counter", "fuzzy", "neural")
	rapid.Check(t, func(rt *rapid.T) {
		for _, s := range []*site{a, b, one} {
			s.do("FLUSHALL")
			s.do("SADD", "BAYES_SPAM_keys", "RS") // not an empty home
		}
		at := int64(1000)
		for _, st := range rapid.SliceOfN(ops, 0, 10).Draw(rt, "base") {
			for _, s := range []*site{a, b, one} {
				st.on(s, at)
			}
			at++
		}
		fork := a.now()
		type change struct {
			atB bool
			d   int
		}
		learned := make(map[change]bool)
		for _, st := range rapid.SliceOfN(ops, 0, 30).Draw(rt, "story") {
			if st.Op == "learn" { // rspamd's digests carry no time: each site changes its mind once
				if learned[change{st.AtB, st.D}] {
					continue
				}
				learned[change{st.AtB, st.D}] = true
			}
			here := a
			if st.AtB {
				here = b
			}
			if st.on(here, at) { // what a site refused is no operation
				st.on(one, at)
			}
			at++
		}
		report, err := a.mergeInto(b, fork)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(one.values(), b.values()); diff != "" {
			rt.Fatalf("one Redis (-) and the merge (+):\n%s\nreport %+v", diff, report)
		}
	})
}

// Only the follower's own commands travel: what came from home by an earlier merge
// does not return.
func TestHomeMovesInMidMerge(t *testing.T) {
	t.Parallel()
	a, b := newSite(t, "a"), newSite(t, "b")
	forkA, forkB := a.now(), b.now()
	for d := range 40 {
		a.learn(d, "spam", int64(1000+d))
		b.learn(d+20, "ham", int64(2000+d))
		a.counter(d%3, 1, 1000)
		b.counter(d%3, 1, 2000)
	}
	// Half of a arrives at b, then a becomes home.
	to := a.now()
	ended := 0
	_, err := merge.Merge(t.Context(), merge.Options{
		Home: b.server.Client, Source: stopping{stream.Backlog{Options: a.options()}, 100, &ended}, Fork: forkA, To: to,
		Origin: "a", Target: "b", BatchCommands: 10,
	})
	if err == nil {
		t.Fatal("the merge was not interrupted")
	}
	if n := b.server.Client.HGet(t.Context(), "us:c:0", "n").Val(); n == "14" {
		t.Fatal("nothing arrived")
	}
	report, err := b.mergeInto(a, forkB)
	if err != nil {
		t.Fatal(err)
	}
	if report.Returned == 0 {
		t.Errorf("nothing was recognised: %+v", report)
	}
	for key, want := range map[string]string{"us:c:0": "28", "us:c:1": "26", "us:c:2": "26"} {
		if n := a.server.Client.HGet(t.Context(), key, "n").Val(); n != want {
			t.Errorf("%s is %s, want %s", key, n, want)
		}
	}
	totals := a.server.Client.HGetAll(t.Context(), "RS").Val()
	if totals["learns_spam"] != "20" || totals["learns_ham"] != "40" { // 20 were taught both ways, as ham later
		t.Errorf("%v", totals)
	}
}
