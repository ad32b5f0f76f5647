package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/internal/admin"
	"understudy/spamsync/corpus"
)

// scan has Rspamd judge a message as its mail server would.
func scan(ctx context.Context, url string, m corpus.Sample) (action string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/checkv2", bytes.NewReader(m.Message))
	if err != nil {
		return "", err
	}
	for k, v := range map[string]string{"IP": m.Addr.String(), "Helo": m.HELO, "From": m.Sender, "Rcpt": m.Recipient, "Queue-Id": m.Name} {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var out struct {
		Action string `json:"action"`
		Error  string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK || out.Error != "" {
		return "", fmt.Errorf("HTTP %d %s", resp.StatusCode, out.Error)
	}
	return out.Action, nil
}

// scanLoad is scans at a steady rate.
type scanLoad struct {
	mu     sync.Mutex
	took   []time.Duration
	errors []string
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// startScans scans messages, perSecond of them, until stop.
func startScans(t *testing.T, url string, perSecond int, seed uint64) *scanLoad {
	t.Helper()
	l := &scanLoad{}
	ctx, cancel := context.WithCancel(t.Context())
	l.cancel = cancel
	all := corpus.Generate(seed, 200)
	l.wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			l.wg.Go(func() {
				began := time.Now()
				_, err := scan(context.WithoutCancel(ctx), url, all[i%len(all)])
				l.mu.Lock()
				defer l.mu.Unlock()
				l.took = append(l.took, time.Since(began))
				if err != nil {
					l.errors = append(l.errors, err.Error())
				}
			})
		}
	})
	return l
}

// stop ends the scans and says how they went.
func (l *scanLoad) stop(t *testing.T, what string) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	slices.Sort(l.took)
	n := len(l.took)
	if n == 0 {
		t.Fatalf("%s: no scans", what)
	}
	t.Logf("%s: %d scans, %d HTTP errors, p50 %v, p99 %v, longest %v", what, n, len(l.errors),
		l.took[n/2].Round(time.Millisecond), l.took[n*99/100].Round(time.Millisecond), l.took[n-1].Round(time.Millisecond))
	if len(l.errors) > 0 {
		t.Errorf("%s: %d HTTP errors, as %s", what, len(l.errors), l.errors[0])
	}
	if l.took[n-1] > time.Second {
		t.Errorf("%s: a scan took %v", what, l.took[n-1])
	}
}

// greyMail is a message that is greylisted, and no other.
func greyMail(seed uint64) corpus.Sample {
	m := corpus.Generate(seed, 1)[0]
	m.Sender = fmt.Sprintf("grey%d@listed.example", seed)
	return m
}

// spamReplica asks the daemon for the state of replication.
func spamReplica(t *testing.T, u *lab.Understudy) *admin.SpamReplica {
	t.Helper()
	c := admin.NewClient(u.Admin)
	defer c.Close()
	st, err := c.SpamStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Replica == nil {
		t.Fatal("no replication in the status")
	}
	return st.Replica
}

func waitReplica(t *testing.T, u *lab.Understudy, state, writes string) {
	t.Helper()
	lab.Wait(t, 40*time.Second, fmt.Sprintf("state %s, writes to %q", state, writes), func() error {
		r := spamReplica(t, u)
		if r.State != state || r.Writes != writes || r.Busy != "" || state == "following" && !r.Local.LinkUp {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

// rspamdFile is one of the files that `spam rspamd-config` prints.
func rspamdFile(t *testing.T, u *lab.Understudy, name string) string {
	t.Helper()
	out, code := u.CLI("spam", "rspamd-config")
	_, text, ok := strings.Cut(out, "# /etc/rspamd/local.d/"+name+"\n")
	if code != 0 || !ok {
		t.Fatalf("exit %d: no %s in\n%s", code, name, out)
	}
	text, _, _ = strings.Cut(text, "# /etc/rspamd/")
	return text
}

// TestReplicaUnderRspamd: home's Redis is killed, and later its host is a black
// hole, under 25 scans a second and with mail being greylisted. No failover section
// is configured. Nothing that asks Rspamd notices, and learning goes on.
func TestReplicaUnderRspamd(t *testing.T) {
	t.Parallel()
	a, b := servers.Redis(t), servers.Redis(t)
	endpoint := lab.FreeAddr(t)
	r := newRspamd(t, "b", b.Addr, endpoint, startResolver(t))
	r.set("actions.conf", `greylist = 1; add_header = 60; reject = 100;`)
	r.set("greylist.conf", `enabled = true; timeout = 2s; expire = 1d; check_local = false; whitelist_domains_url = []; whitelisted_ip = [];`)
	u := lab.NewUnderstudy(t, "smtp://127.0.0.1:1", lab.Settings{
		"spam.engine": "rspamd", "spam.url": "http://" + r.Normal, "spam.learn.url": "http://" + r.Controller,
		"spam.redis.address": b.Addr, "spam.redis.peer": a.Addr, "spam.redis.write_listen": endpoint,
		"spam.redis.gate_listen": lab.FreeAddr(t),
	})
	u.Start()
	waitReplica(t, u, "following", a.Addr)
	r.set("redis.conf", rspamdFile(t, u, "redis.conf"))
	r.start()
	url := "http://" + r.Normal
	teach := func(seed uint64, n int) {
		t.Helper()
		dir := lab.Dir(t)
		for class, spam := range map[string]bool{"--spam": true, "--ham": false} {
			d := filepath.Join(dir, class[2:])
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, m := range corpus.Generate(seed, n) {
				if m.Spam == spam {
					if err := os.WriteFile(filepath.Join(d, m.Name), m.Message, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			if out, code := u.CLI("spam", "learn", class, d); code != 0 {
				t.Fatalf("learn: exit %d\n%s", code, out)
			}
		}
	}
	learned := func() {
		t.Helper()
		lab.Wait(t, 30*time.Second, "everything is learned", func() error {
			c := admin.NewClient(u.Admin)
			defer c.Close()
			st, err := c.SpamStatus(t.Context())
			if err == nil && (st.Learn == nil || st.Learn.Waiting > 0) {
				err = fmt.Errorf("%+v", st.Learn)
			}
			return err
		})
	}
	must := func(what string, m corpus.Sample, want func(string) bool) {
		t.Helper()
		action, err := scan(t.Context(), url, m)
		if err != nil || !want(action) {
			t.Errorf("%s: %q, %v", what, action, err)
		}
	}
	grey := func(s string) bool { return s == "soft reject" || s == "greylist" }
	passed := func(s string) bool { return !grey(s) && s != "" }
	later := func() {
		t.Helper()
		if err := pauseFor(t, 2500*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	teach(11, 30)
	learned()

	for i, kind := range []string{"killed", "black hole"} {
		seed := uint64(100 * (i + 1))
		before, within, gap := greyMail(seed), greyMail(seed+1), greyMail(seed+2)
		must("before: first sight", before, grey)
		save(t, a)
		load := startScans(t, url, 25, seed)
		later()
		if kind == "killed" {
			a.Kill()
		} else {
			a.Freeze()
		}
		began := time.Now()
		must(kind+", in the gap: first sight", gap, grey)
		waitReplica(t, u, "detached", b.Addr)
		t.Logf("%s: detached after %v", kind, time.Since(began).Round(10*time.Millisecond))
		must(kind+": the proper retry of mail from before", before, passed)
		must(kind+": first sight", within, grey)
		must(kind+": second sight of mail from the gap", gap, grey)
		teach(seed+7, 10)
		later()
		must(kind+": the proper retry", within, passed)
		must(kind+": the proper retry of mail from the gap", gap, passed)
		learned()
		if kind == "killed" {
			a.Start()
		} else {
			a.Thaw()
		}
		waitReplica(t, u, "following", a.Addr)
		load.stop(t, kind)
		must(kind+", healed: mail that was let in is let in", within, passed)
		var counts [2]string
		for n, c := range []*servers.KeyValue{a, b} {
			counts[n] = fmt.Sprint(c.Client.HGetAll(t.Context(), "RS").Val()["learns_spam"], c.Client.HGetAll(t.Context(), "RS").Val()["learns_ham"])
		}
		if counts[0] != counts[1] || strings.HasPrefix(counts[0], " ") {
			t.Errorf("%s: learns at home %s, here %s", kind, counts[0], counts[1])
		}
		t.Logf("%s: learned messages afterwards: %s", kind, counts[0])
	}
}
