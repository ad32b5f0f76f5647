//go:build soak

package integration

import (
	"errors"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/spamsync"
	"understudy/spamsync/corpus"
	"understudy/spamsync/learn"
	"understudy/spamsync/replica/merge"
	"understudy/spamsync/replica/stream"
)

// teachAll teaches samples to an Rspamd, which has to accept all of them.
func teachAll(t *testing.T, r *rspamdServer, class spamsync.Class, samples ...corpus.Sample) {
	t.Helper()
	teacher, err := learn.NewRspamd("http://"+r.Controller, "")
	if err != nil {
		t.Fatal(err)
	}
	defer teacher.Close()
	for _, m := range samples {
		c := class
		if c == spamsync.Unlearned {
			if c = spamsync.Ham; m.Spam {
				c = spamsync.Spam
			}
		}
		outcome, err := teacher.Teach(t.Context(), c, m.Name, m.Message)
		if err != nil || outcome != learn.Learned {
			t.Fatalf("%s: %v, %v", m.Name, outcome, err)
		}
	}
}

// scanAll has messages scanned, as new ones from somewhere.
func scanAll(t *testing.T, r *rspamdServer, from string, samples ...corpus.Sample) {
	t.Helper()
	for i, m := range samples {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.Normal+"/checkv2", strings.NewReader(string(m.Message)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("IP", from+strconv.Itoa(i+1))
		req.Header.Set("Helo", "mail.example")
		req.Header.Set("From", "someone@sender.example")
		req.Header.Set("Rcpt", "user"+strconv.Itoa(i%5)+"@here.example")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status, err)
		}
	}
}

// bayesCounts are all numbers of Rspamd's Bayes, by key and field.
func bayesCounts(t *testing.T, c *redis.Client) map[string]int64 {
	t.Helper()
	out := make(map[string]int64)
	var keys []string
	for it := c.Scan(t.Context(), 0, "RS*", 5000).Iterator(); it.Next(t.Context()); {
		keys = append(keys, it.Val())
	}
	pipe := c.Pipeline()
	answers := make([]*redis.MapStringStringCmd, len(keys))
	for i, k := range keys {
		answers[i] = pipe.HGetAll(t.Context(), k)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		for field, text := range answers[i].Val() {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if field != "version" && n != 0 {
				out[k+" "+field] = n
			}
		}
	}
	return out
}

// plusChange adds what changed between two snapshots, times sign.
func plusChange(sum, before, after map[string]int64, sign int64) {
	for k, n := range after {
		sum[k] += sign * n
	}
	for k, n := range before {
		sum[k] -= sign * n
	}
}

// TestMergeOfTwoRspamd: two real Rspamd learn apart; one message is taught at both
// sites, one in opposite classes. After the merge every counter is what it was at
// the fork, plus both sites' changes, minus what counts once.
func TestMergeOfTwoRspamd(t *testing.T) {
	t.Parallel()
	backlog := []string{"--repl-backlog-size", "64mb", "--repl-backlog-ttl", "0"}
	redisA, redisB := servers.Redis(t, backlog...), servers.Redis(t, backlog...)
	host, port, err := net.SplitHostPort(redisA.Addr)
	if err != nil {
		t.Fatal(err)
	}
	redisB.Do("REPLICAOF", host, port)
	resolver := startResolver(t)
	a := newRspamd(t, "merge-a", redisA.Addr, redisA.Addr, resolver)
	b := newRspamd(t, "merge-b", redisB.Addr, redisB.Addr, resolver)
	for _, r := range []*rspamdServer{a, b} {
		r.set("classifier-bayes.conf", `backend = "redis"; autolearn = false; min_learns = 20; expire = 100d; learn_condition = "return function() return true end";`)
	}
	a.start()
	mail := corpus.Generate(501, 140)
	teachAll(t, a, spamsync.Unlearned, mail[:30]...)

	info := func(r *servers.KeyValue) stream.Info {
		t.Helper()
		i, err := stream.FetchInfo(t.Context(), stream.Options{Addr: r.Addr})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	lab.Wait(t, 20*time.Second, "b has everything", func() error {
		if info(redisA).Now != info(redisB).Now {
			return errors.New("not yet")
		}
		return nil
	})
	base := bayesCounts(t, redisA.Client)
	redisB.Do("REPLICAOF", "NO", "ONE")
	b.start()

	// a learns 30 messages and scans, b 35; both learn one, and one differently.
	teachAll(t, a, spamsync.Unlearned, mail[30:60]...)
	scanAll(t, a, "198.51.100.", mail[100:120]...)
	apart := bayesCounts(t, redisA.Client)
	teachAll(t, a, spamsync.Spam, mail[98], mail[99])
	both := bayesCounts(t, redisA.Client)
	teachAll(t, b, spamsync.Unlearned, mail[60:95]...)
	scanAll(t, b, "203.0.113.", mail[120:140]...)
	teachAll(t, b, spamsync.Spam, mail[98])
	teachAll(t, b, spamsync.Ham, mail[99])

	want := maps.Clone(base)
	plusChange(want, base, apart, 1) // 98 and 99 count as b taught them, which was later
	plusChange(want, base, bayesCounts(t, redisB.Client), 1)
	fork, err := stream.Fork(info(redisA), info(redisB))
	if err != nil {
		t.Fatal(err)
	}
	report, err := merge.Merge(t.Context(), merge.Options{
		Home: redisB.Client, Follower: redisA.Client, Source: stream.Backlog{Options: stream.Options{Addr: redisA.Addr}},
		Fork: fork, Origin: "a", Target: "b",
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.UnknownCommands > 0 || len(report.Notes) > 0 {
		t.Errorf("unknown %+v, notes %q", report.Unknown, report.Notes)
	}
	if l := report.Learns; l.Applied != 30 || l.Double != 1 || l.HomeWon != 1 || l.Unnamed != 0 {
		t.Errorf("learns %+v", l)
	}
	got := bayesCounts(t, redisB.Client)
	wrong, total := 0, 0
	for k, n := range want {
		if n != 0 || got[k] != 0 {
			total++
		}
		if got[k] != n {
			if wrong++; wrong < 10 {
				t.Errorf("%s is %d, want %d", k, got[k], n)
			}
		}
		delete(got, k)
	}
	if wrong > 0 || len(got) > 0 {
		t.Errorf("%d of %d counters are wrong, %d came from nowhere", wrong, total, len(got))
	}
	if n := redisB.Client.HLen(t.Context(), "learned_ids").Val(); n != 30+30+35+2 {
		t.Errorf("%d learned messages", n)
	}
	forever := 0
	for k := range want {
		if key, _, _ := strings.Cut(k, " "); strings.HasPrefix(key, "RS_") && redisB.Client.PTTL(t.Context(), key).Val() == -1 {
			forever++
		}
	}
	if forever > 0 {
		t.Errorf("%d tokens live for ever", forever)
	}
	if changed := len(both) - len(apart); changed <= 0 {
		t.Error("the messages taught at both sites have no tokens of their own at a")
	}
	t.Logf("%d commands (%d bytes) in %d batches, %v; %d counters, 0 wrong; %+v", report.Commands, report.Bytes, report.Batches, report.Took, total, report.Kinds)
}
