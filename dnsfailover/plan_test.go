package dnsfailover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func managed(t *testing.T, list ...Record) []Managed {
	t.Helper()
	m, err := NewRecords(list)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func webmail(publish Publish) Record {
	return Record{Name: "webmail.example.net", Type: "A", A: []string{"192.0.2.10"}, B: []string{"198.51.100.10"}, TTL: time.Minute, Publish: publish}
}

func mx(publish Publish) Record {
	return Record{Name: "example.net", Type: "MX", A: []string{"mx1.example.net"}, B: []string{"MX2.example.net."}, TTL: 5 * time.Minute, Publish: publish}
}

func TestWanted(t *testing.T) {
	for _, tc := range []struct {
		rec  Record
		a, b []string
	}{
		{webmail(""), []string{"192.0.2.10"}, []string{"198.51.100.10"}},
		{webmail(PublishBoth), []string{"192.0.2.10", "198.51.100.10"}, []string{"192.0.2.10", "198.51.100.10"}},
		{mx(""), []string{"10 mx1.example.net.", "20 mx2.example.net."}, []string{"10 mx2.example.net.", "20 mx1.example.net."}},
		{mx(Equal), []string{"10 mx1.example.net.", "10 mx2.example.net."}, []string{"10 mx1.example.net.", "10 mx2.example.net."}},
		{mx(FixedOrder), []string{"10 mx1.example.net.", "20 mx2.example.net."}, []string{"10 mx1.example.net.", "20 mx2.example.net."}},
	} {
		m := managed(t, tc.rec)[0]
		if a, b := m.wanted(0), m.wanted(1); !slices.Equal(a, tc.a) || !slices.Equal(b, tc.b) {
			t.Errorf("%s %s: %v and %v", m.RRKey, m.Publish, a, b)
		}
	}
}

func TestPlan(t *testing.T) {
	recs := managed(t, webmail(PublishActive))
	in := PlanInput{Records: recs, Sites: [2]Site{"x", "y"}, Active: "y"}
	set := func(ttl time.Duration, values ...string) []RRSet {
		return []RRSet{{RRKey: recs[0].RRKey, TTL: ttl, Values: values}}
	}
	for _, tc := range []struct {
		name     string
		present  []RRSet
		adopted  []RRSet
		change   bool
		foreign  bool
		warnings int
	}{
		{"moves", set(time.Minute, "192.0.2.10"), nil, true, false, 0},
		{"is there", set(time.Minute, "198.51.100.10"), nil, false, false, 0},
		{"TTL only", set(time.Hour, "198.51.100.10"), nil, true, false, 1},
		{"old TTL", set(time.Hour, "192.0.2.10"), nil, true, false, 1},
		{"absent", set(0), nil, true, false, 1},
		{"foreign", set(time.Minute, "203.0.113.7"), nil, false, true, 0},
		{"one more", set(time.Minute, "192.0.2.10", "203.0.113.7"), nil, false, true, 0},
		{"both of ours is not this policy", set(time.Minute, "192.0.2.10", "198.51.100.10"), nil, false, true, 0},
		{"adopted", set(time.Minute, "203.0.113.7"), set(0, "203.0.113.7"), true, false, 0},
		{"another was adopted", set(time.Minute, "203.0.113.8"), set(0, "203.0.113.7"), false, true, 0},
		{"not looked at", nil, nil, false, false, 0},
	} {
		in.Present, in.Adopted = tc.present, tc.adopted
		steps := Plan(in)
		changes, foreign := Changes(steps)
		warnings := 0
		for _, s := range steps {
			warnings += len(s.Warnings)
		}
		if len(changes) > 0 != tc.change || len(foreign) > 0 != tc.foreign || warnings != tc.warnings {
			t.Errorf("%s: changes %v, foreign %v, %d warnings", tc.name, changes, foreign, warnings)
		}
	}
}

// TestPlanProperties: nothing is emptied, nothing foreign is replaced, only the
// two sites' values are written, and the second time there is nothing to do.
func TestPlanProperties(t *testing.T) {
	recs := managed(t, webmail(PublishActive), webmailIn("imap.example.net", PublishBoth), mx(PreferActive))
	all := []string{"192.0.2.10", "198.51.100.10", "203.0.113.7"}
	rapid.Check(t, func(rt *rapid.T) {
		in := PlanInput{Records: recs, Sites: [2]Site{"a", "b"}, Active: rapid.SampledFrom([]Site{"a", "b"}).Draw(rt, "active")}
		for _, m := range recs[:2] {
			values := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, 3, func(s string) string { return s }).Draw(rt, "present")
			slices.Sort(values)
			in.Present = append(in.Present, RRSet{RRKey: m.RRKey, TTL: time.Minute, Values: values})
		}
		changes, _ := Changes(Plan(in))
		for _, c := range changes {
			if len(c.New) == 0 {
				rt.Fatalf("%s is emptied", c)
			}
			if slices.Contains(c.Old, all[2]) || slices.Contains(c.New, all[2]) {
				rt.Fatalf("%s touches what nobody here wrote", c)
			}
			i := slices.IndexFunc(in.Present, func(s RRSet) bool { return s.RRKey == c.RRKey })
			in.Present[i].Values, in.Present[i].TTL = c.New, c.TTL
		}
		if again, _ := Changes(Plan(in)); len(again) > 0 {
			rt.Fatalf("the second time: %v", again)
		}
	})
}

func webmailIn(name string, publish Publish) Record {
	r := webmail(publish)
	r.Name = name
	return r
}

func TestRecordFaults(t *testing.T) {
	for want, change := range map[string]func(*Record){
		"not a name below a zone": func(r *Record) { r.Name = "net" },
		"is not managed":          func(r *Record) { r.Type = "NS" },
		"at least one value":      func(r *Record) { r.B = nil },
		"no address for A":        func(r *Record) { r.B = []string{"2001:db8::1"} },
		"is active or both":       func(r *Record) { r.Publish = Equal },
		"nothing to move":         func(r *Record) { r.B = r.A },
		"in whole seconds":        func(r *Record) { r.TTL = time.Second },
		"always names both sites": func(r *Record) { *r = mx(PublishActive) },
		"mail exchanger":          func(r *Record) { *r = mx(Equal); r.A = []string{"10 mx1.example.net"} },
	} {
		r := webmail(PublishActive)
		change(&r)
		if _, err := NewRecords([]Record{r}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", r, err, want)
		}
	}
	if _, err := NewRecords([]Record{webmail(""), webmail("")}); err == nil {
		t.Error("a record may be there twice")
	}
}

func TestTimingBound(t *testing.T) {
	ok := DefaultTiming()
	if err := ok.Validate(); err != nil {
		t.Error(err)
	}
	short := ok
	short.Wait = ok.LeastWait() - 1
	if err := short.Validate(); err == nil || !strings.Contains(err.Error(), "timing.wait: ") {
		t.Errorf("a wait under the bound: %v", err)
	}
	slow := ok
	slow.Poll = 10 * time.Second
	if err := slow.Validate(); err == nil || !strings.Contains(err.Error(), "timing.poll: ") {
		t.Errorf("a poll as long as the permit: %v", err)
	}
}
