package builtin

import (
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/smtp"
	"understudy/smtp/auth"
	"understudy/spamsync"
	"understudy/spamsync/message"
)

// TestExplainRemembersNothing, also where the greylist is asked.
func TestExplainRemembersNothing(t *testing.T) {
	t.Parallel()
	state := spamsync.NewMemory(nil)
	f := newFilter(t, func(c *Config, d *Deps) {
		c.Scores = map[string]float64{"MISSING_MID": 5}
		c.Ratelimit.Messages = 10
		d.State, d.Greylist = state, spamsync.NewGreylist(state, c.Greylist, nil, nil)
	})
	message := letter("Message-ID: <1@good.example>\r\n", "")
	for range 3 {
		if r := explain(t, f, envelope(), message); r.Verdict.Action != smtp.Defer || !slices.Contains(symbols(r), symGreylist) {
			t.Fatalf("%+v", r.Verdict)
		}
	}
	if n := state.Records(); n != 0 {
		t.Errorf("%d records", n)
	}
	if _, err := f.Check(t.Context(), envelope(), strings.NewReader(message)); err != nil || state.Records() == 0 {
		t.Errorf("checking leaves %d records, %v", state.Records(), err)
	}
	// Who is authenticated, or the other site, is not deferred.
	for name, c := range map[string]smtp.Client{"user": {User: "u"}, "peer": {Peer: true}} {
		env := envelope()
		env.Client.User, env.Client.Peer = c.User, c.Peer
		if r := explain(t, f, env, message); r.Verdict.Action != smtp.Accept || r.Verdict.Score != 5 {
			t.Errorf("%s: %+v", name, r.Verdict)
		}
	}
}

// TestRefusedForRateIsNotCounted: a client that keeps trying gets its share.
func TestRefusedForRateIsNotCounted(t *testing.T) {
	t.Parallel()
	now := received
	f := newFilter(t, func(c *Config, d *Deps) {
		c.Ratelimit.Messages = 3
		d.State, d.Now = spamsync.NewMemory(func() time.Time { return now }), func() time.Time { return now }
	})
	for i := range 20 {
		v, err := f.Check(t.Context(), envelope(), strings.NewReader(letter()))
		if err != nil || (v.Action == smtp.Defer) != (i >= 3) {
			t.Errorf("message %d: %+v, %v", i, v, err)
		}
	}
	now = now.Add(time.Hour + 30*time.Minute)
	if v, err := f.Check(t.Context(), envelope(), strings.NewReader(letter())); err != nil || v.Action != smtp.Accept {
		t.Errorf("after a while: %+v, %v", v, err)
	}
}

// TestTrustedARC: the seal of a trusted list that saw DMARC pass outweighs that it
// fails here; no other seal does.
func TestTrustedARC(t *testing.T) {
	t.Parallel()
	f := newFilter(t, func(c *Config, _ *Deps) { c.TrustedARC = []string{"Lists.example"} })
	for _, tc := range []struct {
		arc     auth.ARCResult
		trusted bool
	}{
		{auth.ARCResult{Result: auth.Pass, Sealer: "lists.example", Results: "mx; dmarc=pass header.from=a"}, true},
		{auth.ARCResult{Result: auth.Pass, Sealer: "lists.example", Results: "mx; dmarc=fail"}, false},
		{auth.ARCResult{Result: auth.Pass, Sealer: "evil.example", Results: "mx; dmarc=pass"}, false},
		{auth.ARCResult{Result: auth.Fail, Sealer: "lists.example", Results: "mx; dmarc=pass"}, false},
	} {
		j := &judgement{env: envelope(), m: mustParse(t, letter()), outside: true, found: findings{scores: f.scores}}
		j.auth.ARC = tc.arc
		j.auth.DMARC = auth.DMARCResult{Result: auth.Fail, Policy: auth.PolicyReject, Percent: 100}
		f.judgeAuth(j)
		if j.found.has(symARCTrusted) != tc.trusted || j.found.has("DMARC_POLICY_REJECT") == tc.trusted {
			t.Errorf("%+v: %+v", tc.arc, j.found.list)
		}
	}
}

func mustParse(t *testing.T, text string) *message.Message {
	t.Helper()
	m, err := message.Parse(strings.NewReader(text), message.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}
