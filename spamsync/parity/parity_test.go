package parity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// fakeEngine judges by a function of the message and the number of the question.
type fakeEngine struct {
	mu    sync.Mutex
	asked map[string]int
	say   func(name string, n int) (Judgement, error)
}

func (f *fakeEngine) Judge(_ context.Context, m Message) (Judgement, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == nil {
		f.asked = map[string]int{}
	}
	f.asked[m.Name]++
	return f.say(m.Name, f.asked[m.Name])
}

func judged(action string, score float64, symbols ...any) Judgement {
	j := Judgement{Action: action, Score: score, Symbols: map[string]Symbol{}}
	for i := 0; i < len(symbols); i += 2 {
		name, _ := symbols[i].(string)
		value, _ := symbols[i+1].(float64)
		j.Symbols[name] = Symbol{Score: value}
	}
	return j
}

func messages(n int) []Message {
	out := make([]Message, n)
	for i := range out {
		out[i].Name = fmt.Sprintf("m%02d", i)
	}
	return out
}

func run(t *testing.T, n int, here, peer func(name string, n int) (Judgement, error)) Report {
	t.Helper()
	p, err := probe(t.Context(), &fakeEngine{say: here}, &fakeEngine{say: peer}, messages(n), 2)
	if err != nil {
		t.Fatal(err)
	}
	r := Report{Probe: p}
	r.conclude()
	return r
}

func TestProbe(t *testing.T) {
	t.Parallel()
	equal := func(string, int) (Judgement, error) { return judged("no action", 1.5, "A", 1.0, "B", 0.5), nil }
	if r := run(t, 20, equal, equal); r.Result != Equal || r.Probe.Messages != 20 || r.Broken() {
		t.Errorf("equal: %+v", r)
	}

	// Every seventh question has another answer, at both sites: noise.
	var mu sync.Mutex
	count := 0
	noisy := func(string, int) (Judgement, error) {
		mu.Lock()
		defer mu.Unlock()
		if count++; count%7 == 0 {
			return judged("no action", 1.7, "A", 1.0, "B", 0.7), nil
		}
		return equal("", 0)
	}
	if r := run(t, 50, noisy, noisy); r.Result != Noise || r.Probe.Unequal == 0 || r.Probe.Different != 0 {
		t.Errorf("noise: %+v", r)
	}

	// One symbol has another score at the peer, in half of the messages, beside the noise.
	half := func(name string, n int) (Judgement, error) {
		j, _ := noisy(name, n)
		if name < "m25" {
			j.Symbols["A"] = Symbol{Score: 1.2}
			j.Score += 0.2
		}
		return j, nil
	}
	r := run(t, 50, noisy, half)
	if r.Result != Different || r.Probe.Different != 25 {
		t.Errorf("score: %+v", r)
	}
	want := []SymbolReport{{Name: "A", Messages: 25, Here: "1", Peer: "1.2"}}
	if d := cmp.Diff(want, r.Probe.Symbols); d != "" {
		t.Error(d)
	}

	missing := func(string, int) (Judgement, error) { return judged("add header", 1.0, "A", 1.0), nil }
	r = run(t, 5, equal, missing)
	wantDiffs := []Difference{
		{Aspect: "action", Here: "no action", Peer: "add header"},
		{Aspect: "score", Here: "1.5", Peer: "1"},
		{Aspect: "symbol", Name: "B", Here: "0.5"},
	}
	if len(r.Probe.Named) != 5 || cmp.Diff(wantDiffs, r.Probe.Named[0].Differences) != "" {
		t.Errorf("missing: %+v", r.Probe.Named)
	}

	// A site whose scores jump about hides everything: that is told, too.
	wild := func(_ string, n int) (Judgement, error) { return judged("no action", float64(n%2)*5), nil }
	if r := run(t, 30, wild, wild); !r.Broken() {
		t.Errorf("wild: %+v", r)
	}
	jumpy := func(_ string, n int) (Judgement, error) {
		return judged("no action", 1.5, "A", 1.0, "B", 0.5+float64(n%2)/10), nil
	}
	if r := run(t, 30, equal, jumpy); !r.Broken() {
		t.Errorf("jumpy: %+v", r)
	}
}

// TestManyAreUnequal: many messages that differ by what is noise are a finding, but
// for those that differ in the classifier alone, which has a measure of its own.
func TestManyAreUnequal(t *testing.T) {
	t.Parallel()
	site := func(symbol string, extra float64) func(string, int) (Judgement, error) {
		return func(name string, n int) (Judgement, error) {
			if name == "m00" { // it changes at both sites, and so is noise
				return judged("no action", 1+float64(n%2), "X", 1.0, symbol, float64(n%2)), nil
			}
			return judged("no action", 1.5+extra, "X", 1.0, symbol, 0.5+extra), nil
		}
	}
	if r := run(t, 40, site("NEURAL", 0), site("NEURAL", 0.2)); !r.Broken() || len(r.Probe.Findings) != 1 {
		t.Errorf("neural: %s: %v", r.Summary(), r.Probe.Findings)
	}
	if r := run(t, 40, site("BAYES_SPAM", 0), site("BAYES_SPAM", 0.2)); r.Broken() || r.Probe.Unequal != 39 || r.Probe.BayesDrift < 0.19 {
		t.Errorf("bayes: %s: %+v", r.Summary(), r.Probe)
	}
	if r := run(t, 40, site("BAYES_SPAM", 0), site("BAYES_SPAM", 0.3)); !r.Broken() {
		t.Errorf("bayes far apart: %s", r.Summary())
	}
}

// TestNoiseOfOneSymbol: what a network says depends a little on the process that judges.
func TestNoiseOfOneSymbol(t *testing.T) {
	t.Parallel()
	site := func(offset float64) func(string, int) (Judgement, error) {
		return func(name string, n int) (Judgement, error) {
			switch {
			case name == "m01": // it changes at both sites
				return judged("no action", 3+float64(n%2), "X", 3.0, "NEURAL", float64(n%2)), nil
			case name == "m02" && offset != 0: // between the sites by as much, over a threshold
				return judged("greylist", 3.6, "X", 3.0, "NEURAL", 0.6), nil
			case name == "m03" && offset != 0: // and around zero
				return judged("no action", 3, "X", 3.0, "HAM", 0.0), nil
			}
			return judged("no action", 3, "X", 3.0, "NEURAL", 0.0), nil
		}
	}
	r := run(t, 40, site(0), site(1))
	if r.Probe.Unequal < 2 || r.Probe.Different != 1 || r.Probe.Named[0].Name != "m03" {
		t.Errorf("%+v", r.Probe)
	}
	// HAM, which never changes anywhere, is the one difference.
	if d := cmp.Diff([]Difference{{Aspect: "symbol", Name: "HAM", Peer: "0"}}, r.Probe.Named[0].Differences); d != "" {
		t.Error(d)
	}
	// A lower threshold changes the action and nothing else: never noise.
	strict := func(string, int) (Judgement, error) { return judged("reject", 3, "X", 3.0, "NEURAL", 0.0), nil }
	if r := run(t, 10, site(0), strict); r.Probe.Different < 9 {
		t.Errorf("%+v", r.Probe)
	}
}

// TestClassifier: single messages may differ a little, all together must not.
func TestClassifier(t *testing.T) {
	t.Parallel()
	site := func(every int, by float64) func(string, int) (Judgement, error) {
		return func(name string, _ int) (Judgement, error) {
			i := 0
			_, _ = fmt.Sscanf(name, "m%d", &i)
			b := 4.0
			if i%every == 0 {
				b -= by
			}
			return judged("add header", 3+b, "X", 3.0, "BAYES_SPAM", b), nil
		}
	}
	if r := run(t, 40, site(1, 0), site(10, 1.3)); r.Result != Noise || r.Probe.Unequal != 4 {
		t.Errorf("a little: %s %+v", r.Summary(), r.Probe)
	}
	if r := run(t, 40, site(1, 0), site(10, 2.4)); r.Probe.Different != 4 {
		t.Errorf("single messages by much: %s", r.Summary())
	}
	if r := run(t, 40, site(1, 0), site(1, 0.5)); !r.Broken() || r.Differences[0].Aspect != "bayes" {
		t.Errorf("all a little: %s", r.Summary())
	}
	untrained := func(string, int) (Judgement, error) { return judged("no action", 3, "X", 3.0), nil }
	if r := run(t, 40, site(1, 0), untrained); r.Probe.Different != 40 || r.Differences[0].Aspect != "bayes" {
		t.Errorf("untrained: %s", r.Summary())
	}
}

func TestProbeWithoutAnswers(t *testing.T) {
	t.Parallel()
	equal := func(string, int) (Judgement, error) { return judged("no action", 0), nil }
	some := func(name string, _ int) (Judgement, error) {
		if name == "m03" {
			return Judgement{}, errors.New("timeout")
		}
		return judged("no action", 0), nil
	}
	r := run(t, 10, equal, some)
	if !r.Broken() || r.Probe.Messages != 9 || r.Probe.Failed != 1 || !strings.Contains(r.Summary(), "m03: peer: timeout") {
		t.Errorf("%+v\n%s", r, r.Summary())
	}
	dead := func(string, int) (Judgement, error) { return Judgement{}, errors.New("refused") }
	if _, err := probe(t.Context(), &fakeEngine{say: equal}, &fakeEngine{say: dead}, messages(3), 2); err == nil {
		t.Error("a dead peer is no error")
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	changed := func(change func(*Fingerprint)) Fingerprint {
		f := Fingerprint{
			Version: "3.4", Symbols: map[string]float64{"A": 1, "B": 2}, Groups: map[string]string{"A": "g", "B": "g"},
			Actions: map[string]float64{"reject": 15}, Maps: map[string]string{"x.map": "1"},
		}
		if change != nil {
			change(&f)
		}
		return f
	}
	here := changed(nil)
	for _, c := range []struct {
		change func(*Fingerprint)
		want   string
	}{
		{nil, "[]"},
		{func(f *Fingerprint) { f.Version = "3.5" }, "[version: here 3.4, peer 3.5]"},
		{func(f *Fingerprint) { f.Symbols["A"] = 1.5 }, "[symbol A of group g: here 1, peer 1.5]"},
		{func(f *Fingerprint) { delete(f.Symbols, "B") }, "[symbol B of group g: here 2, peer absent]"},
		{func(f *Fingerprint) { f.Symbols["C"] = 0 }, "[symbol C: here absent, peer 0]"},
		{func(f *Fingerprint) { f.Actions["reject"] = 12 }, "[threshold reject: here 15, peer 12]"},
		{func(f *Fingerprint) { f.Maps["x.map"] = "2" }, "[map x.map: here 1, peer 2]"},
	} {
		if got := fmt.Sprint(here.differ(changed(c.change))); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	master := parseInfo("# Replication\r\nrole:master\r\nmaster_replid:abc\r\nmaster_repl_offset:1400\r\n# Persistence\r\nrdb_changes_since_last_save:7\r\n")
	replica := parseInfo("role:slave\r\nmaster_link_status:up\r\nmaster_replid:abc\r\nmaster_repl_offset:1400\r\n")
	if d := cmp.Diff(RedisView{Role: "master", ID: "abc", Offset: 1400, Changes: 7}, master); d != "" {
		t.Error(d)
	}
	cut := replica
	cut.Linked = false
	other := master
	other.ID = "xyz"
	for _, c := range []struct {
		a, b RedisView
		want int
	}{{master, replica, 0}, {replica, master, 0}, {master, cut, 1}, {master, other, 2}, {master, master, 0}} {
		if got := differRedis(c.a, c.b); len(got) != c.want {
			t.Errorf("%v and %v: %v", c.a, c.b, got)
		}
	}
	for _, c := range []struct {
		more    int64
		elapsed time.Duration
		want    int64
	}{{0, time.Second, 0}, {14, time.Second, 0}, {28, time.Second, 0}, {140, time.Second, 140}, {15, time.Minute, 15}} {
		after := master
		after.Offset += c.more
		if got := written(master, after, c.elapsed); got != c.want {
			t.Errorf("%d more in %v: %d", c.more, c.elapsed, got)
		}
	}
	lone := RedisView{Changes: 1}
	if got := written(lone, RedisView{Changes: 3}, time.Second); got != 2 {
		t.Errorf("without replication: %d", got)
	}
}

type fakeAlarms struct {
	mu sync.Mutex
	on map[string]string
}

func (f *fakeAlarms) Raise(key, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on[key] = text
}

func (f *fakeAlarms) Clear(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.on, key)
}

func (f *fakeAlarms) raised(key string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.on[key]
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		results := []Outcome{
			{Report: Report{Result: Equal}},
			{Report: Report{Result: Different, Probe: Probe{Different: 3, Messages: 50}}},
			{Err: errors.New("peer is away")},
			{Report: Report{Result: Noise}},
		}
		var n atomic.Int32
		compare := func(context.Context) (Report, error) {
			o := results[n.Add(1)-1]
			return o.Report, o.Err
		}
		alarms := &fakeAlarms{on: map[string]string{}}
		s, err := newSchedule(time.Hour, compare, alarms, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		if s.Last() != nil {
			t.Error("an outcome before the first comparison")
		}
		time.Sleep(2 * time.Minute) //nolint:forbidigo // a bubble's clock
		for i, broken := range []bool{false, true, true, false} {
			synctest.Wait()
			if got := alarms.raised(alarmKey) != ""; got != broken || int(n.Load()) != i+1 {
				t.Errorf("comparison %d of %d: alarm %q", i, n.Load(), alarms.raised(alarmKey))
			}
			if got := testutil.ToFloat64(s.broken) == 1; got != broken {
				t.Errorf("comparison %d: metric %v", i, got)
			}
			if i < len(results)-1 {
				time.Sleep(time.Hour) //nolint:forbidigo // a bubble's clock
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestJudgementsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"", "{}", "[]", "nonsense", `{"action":7}`} {
		if j, err := parseJudgement([]byte(raw)); err == nil {
			t.Errorf("%q: %+v", raw, j)
		}
	}
	j, err := parseJudgement([]byte(`{"action":"reject","score":20,"required_score":15,"messages":[],"symbols":{"X":{"score":1,"options":["a"]}}}`))
	if err != nil || j.Symbols["X"].Score != 1 || j.Required != 15 {
		t.Errorf("%+v, %v", j, err)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	r := Report{Site: "b", PeerSite: "a", Probe: Probe{Messages: 3, Unequal: 1, Different: 1, Named: []MessageReport{{Name: "m", Differences: []Difference{{Aspect: "score", Here: "1", Peer: "2"}}}}}}
	r.note("fingerprint", errors.New("peer: refused"))
	r.conclude()
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"here b, peer a", "message m: score: here 1, peer 2", "fingerprint: peer: refused", "2 equal, 0 within the noise, 1 different", "different, after"} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("%q is missing in\n%s", part, b.String())
		}
	}
}
