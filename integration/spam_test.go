package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
	"understudy/internal/admin"
	"understudy/smtp/queue"
	"understudy/spamsync/corpus"
)

// TestBothFrontsJudgeAlike sends the same messages, with the addresses of clients
// all over the world, to a real Postfix with Rspamd as its milter and to understudy
// with Rspamd of its own: each gets the same answer at both, and the same mark.
// Rspamd itself is not quite deterministic: one process gives a message the same
// score again and again, but now and then an Rspamd that was started anew, with the
// same configuration and memory, scores some messages otherwise, by up to 2 points of
// Bayes. So everything is sent twice, with a restart of both in between, and what
// differs again after further restarts. Only a message that no start at one front
// answers as at the other counts as judged differently, and there must be none.
func TestBothFrontsJudgeAlike(t *testing.T) {
	require.Command(t, "postfix")
	all := corpus.Generate(9, 200)
	s := startFilterSites(t, func(r *rspamdServer) {
		// Much of the generated spam scores 9 to 15: with a lower threshold it is rejected.
		r.set("actions.conf", "reject = 9;")
		r.set("history_redis.conf", fmt.Sprintf(`key_prefix = "history_%s"; nrows = 5000;`, r.site))
		// Greylisting takes the band of marks: clients with an odd address are exempt.
		exempt := filepath.Join(r.local, "exempt.map")
		// What one site greylists the other would defer unseen: each has records of its own.
		r.set("greylist.conf", fmt.Sprintf("whitelisted_ip = %q; key_prefix = \"rg%s\";", exempt, r.site))
		r.put(exempt, oddClients(all))
	})
	s.train(t, 6, 160)
	primary, backup := startFronts(t, s)
	both := func(messages []corpus.Sample) { // at the same time: neither is always the first
		var wg sync.WaitGroup
		wg.Go(func() { primary.send(t, messages) })
		backup.send(t, messages)
		wg.Wait()
		primary.collect(t, messages)
		backup.collect(t, messages)
		// Otherwise a second attempt would be deferred unseen.
		s.redisA.Do("EVAL", "for _, k in ipairs(redis.call('KEYS', 'rg[ab]*')) do redis.call('DEL', k) end return 1", 0)
	}
	restart := func() {
		for _, r := range []*rspamdServer{s.a, s.b} {
			r.stop()
			r.start()
		}
	}
	both(all)
	restart()
	both(all)
	unequal, noise := unlikeIn(all, primary.rounds[0], backup.rounds[0]), 0
	for _, f := range []*front{primary, backup} {
		n := len(unlikeIn(all, f.rounds[0], f.rounds[1]))
		t.Logf("%s: %v, and %d messages answered otherwise after a restart", f.name, counted(f.rounds[0]), n)
		noise = max(noise, n)
	}
	for range 6 { // those that differ every time again, to see whether they ever agree
		again := apartIn(all, primary, backup)
		if len(again) == 0 {
			break
		}
		restart()
		both(again)
	}
	apart := apartIn(all, primary, backup)
	t.Logf("200 messages over SMTP: %d answered otherwise at first sight (%d is one front's own noise), %d every time", len(unequal), noise, len(apart))
	histories := map[string]map[string][]string{"primary": s.a.history(t), "backup": s.b.history(t)}
	for _, m := range unequal {
		t.Logf("%s: primary %q, backup %q", m.Name, histories["primary"][idOf(m)], histories["backup"][idOf(m)])
	}
	if len(apart) > 0 {
		t.Errorf("%d messages are always judged differently", len(apart))
	}
	if len(unequal) > 2*noise+8 { // 5 is the most that chance was seen to do
		t.Errorf("%d messages differ at first sight, and at one front only %d: that is more than chance", len(unequal), noise)
	}
	for _, want := range []string{"accepted", "marked", "deferred", "rejected"} {
		if n := counted(primary.rounds[0])[want]; n < 10 {
			t.Errorf("only %d messages are %s: the messages do not tell actions apart", n, want)
		}
	}
}

// oddClients lists the clients whose address ends in an odd number, as a map.
func oddClients(all []corpus.Sample) string {
	var b strings.Builder
	for _, m := range all {
		if a := m.Addr.AsSlice(); a[len(a)-1]%2 == 1 {
			b.WriteString(m.Addr.String() + "\n")
		}
	}
	return b.String()
}

// startFronts starts Postfix before the Rspamd of a, understudy before that of b.
func startFronts(t *testing.T, s *filterSites) (primary, backup *front) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.a.Milter)
	if err != nil {
		t.Fatal(err)
	}
	p := lab.NewPostfix(t, lab.PostfixConfig{Domain: "primary.example", Main: map[string]string{
		"smtpd_milters":                  "inet:[" + host + "]:" + port,
		"milter_protocol":                "6",
		"milter_default_action":          "tempfail",
		"milter_mail_macros":             "i {mail_addr} {client_addr} {client_name} {auth_authen}",
		"smtpd_authorized_xclient_hosts": "127.0.0.0/8",
		"smtpd_relay_restrictions":       "permit_mynetworks, permit_auth_destination, reject",
		"smtpd_recipient_restrictions":   "permit_mynetworks, permit_auth_destination, reject",
		"smtpd_client_restrictions":      "",
		"smtpd_delay_reject":             "yes",
	}})
	p.Start()
	u := lab.NewUnderstudy(t, "smtp://127.0.0.1:1", lab.Settings{
		"domains": []string{"primary.example"}, "smtp.xclient_from": []string{"127.0.0.0/8"},
		"spam.engine": "rspamd", "spam.url": "http://" + s.b.Normal,
	})
	u.AddRecipient("@primary.example")
	u.Start()
	primary = &front{name: "primary", addr: p.Addr, seen: map[string]bool{}}
	primary.marks = func(out map[string]string, all []corpus.Sample) { primary.markPostfix(t, p, all, out) }
	backup = &front{name: "backup", addr: u.SMTP, seen: map[string]bool{}}
	backup.marks = func(out map[string]string, all []corpus.Sample) { backup.markUnderstudy(t, u, all, out) }
	return primary, backup
}

// front is a server that takes mail from outside.
type front struct {
	name, addr string
	// rounds are the outcomes by message, every time that mail was sent.
	rounds []map[string]string
	// marks finds which of the accepted messages are marked as spam.
	marks func(outcomes map[string]string, all []corpus.Sample)
	// seen are the files or queue ids of earlier rounds.
	seen map[string]bool
}

// send sends messages and notes what was answered to each, as a new round.
func (f *front) send(t *testing.T, all []corpus.Sample) {
	t.Helper()
	out := make(map[string]string, len(all))
	for _, m := range all {
		err := sendAs(t, f.addr, m)
		out[m.Name] = outcome(err)
		if _, ok := errors.AsType[*lab.ReplyError](err); err != nil && !ok {
			t.Errorf("%s: %s: %v", f.name, m.Name, err)
		}
	}
	f.rounds = append(f.rounds, out)
}

// collect finds what the last round's accepted messages became.
func (f *front) collect(t *testing.T, all []corpus.Sample) {
	t.Helper()
	f.marks(f.rounds[len(f.rounds)-1], all)
}

// counted is how many messages had each outcome.
func counted(round map[string]string) map[string]int {
	out := map[string]int{}
	for _, o := range round {
		out[o]++
	}
	return out
}

// unlikeIn are the messages with different outcomes in two rounds.
func unlikeIn(all []corpus.Sample, a, b map[string]string) []corpus.Sample {
	var out []corpus.Sample
	for _, m := range all {
		if a[m.Name] != b[m.Name] {
			out = append(out, m)
		}
	}
	return out
}

// apartIn are the messages that had no outcome in common at both fronts.
func apartIn(all []corpus.Sample, a, b *front) []corpus.Sample {
	var out []corpus.Sample
	for _, m := range all {
		common := false
		for _, x := range a.rounds {
			for _, y := range b.rounds {
				common = common || x[m.Name] != "" && x[m.Name] == y[m.Name]
			}
		}
		if !common {
			out = append(out, m)
		}
	}
	return out
}

// history is what this Rspamd decided, by Message-ID, the newest first.
func (r *rspamdServer) history(t *testing.T) map[string][]string {
	t.Helper()
	resp, err := http.Get("http://" + r.Controller + "/history") //nolint:noctx // a loopback server of the test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var h struct {
		Rows []struct {
			ID     string  `json:"message-id"`
			Action string  `json:"action"`
			Score  float64 `json:"score"`
		} `json:"rows"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, row := range h.Rows {
		out[row.ID] = append(out[row.ID], fmt.Sprintf("%s %.2f", row.Action, row.Score))
	}
	return out
}

// sendAs sends m in the name of its client (XCLIENT).
func sendAs(t *testing.T, addr string, m corpus.Sample) error {
	t.Helper()
	c, err := lab.Dial(t.Context(), addr)
	if err != nil {
		return err
	}
	defer c.Close()
	name := m.ReverseName
	if name == "" {
		name = "[UNAVAILABLE]"
	}
	client := m.Addr.String()
	if m.Addr.Is6() {
		client = "IPV6:" + client
	}
	if _, err := c.Command(220, "XCLIENT ADDR=%s NAME=%s HELO=%s PROTO=ESMTP", client, name, m.HELO); err != nil {
		return fmt.Errorf("no XCLIENT: %v", err) //nolint:errorlint // not an answer to the message
	}
	if _, err := c.Command(250, "EHLO %s", m.HELO); err != nil {
		return err
	}
	return c.Send(lab.Message{From: m.Sender, To: []string{m.Recipient}, Text: crlf(m.Message)})
}

// crlf makes every line of a message end as SMTP wants it, the last one too.
func crlf(text []byte) []byte {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
}

// outcome is the kind of an answer.
func outcome(err error) string {
	var r *lab.ReplyError
	switch {
	case err == nil:
		return "accepted"
	case errors.As(err, &r) && r.Code/100 == 4:
		return "deferred"
	case errors.As(err, &r) && r.Code/100 == 5:
		return "rejected"
	}
	return err.Error()
}

var messageID = regexp.MustCompile(`(?im)^message-id:\s*<([^>\s]+)>`)

// idOf is a message's Message-ID without brackets.
func idOf(m corpus.Sample) string {
	if id := messageID.FindSubmatch(m.Message); id != nil {
		return string(id[1])
	}
	return ""
}

// markPostfix notes which messages of this round are marked as spam.
func (f *front) markPostfix(t *testing.T, p *lab.Postfix, all []corpus.Sample, outcomes map[string]string) {
	t.Helper()
	accepted := len(f.seen) + counted(outcomes)["accepted"]
	box := filepath.Join(p.Dir, "mail", "box", "new")
	var files []os.DirEntry
	lab.Wait(t, time.Minute, "delivery of all accepted messages", func() error {
		var err error
		if files, err = os.ReadDir(box); err == nil && len(files) < accepted {
			err = fmt.Errorf("%d of %d", len(files), accepted)
		}
		if errors.Is(err, os.ErrNotExist) && accepted == 0 {
			err = nil
		}
		return err
	})
	names := map[string]string{}
	for _, m := range all {
		names[idOf(m)] = m.Name
	}
	for _, file := range files {
		if f.seen[file.Name()] {
			continue
		}
		f.seen[file.Name()] = true
		text, err := os.ReadFile(filepath.Join(box, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		header, _, _ := strings.Cut(string(text), "\n\n")
		id := messageID.FindStringSubmatch(header)
		if id == nil || names[id[1]] == "" {
			t.Errorf("delivered file %s is none of ours", file.Name())
			continue
		}
		if strings.Contains(header, "X-Spam: Yes") {
			outcomes[names[id[1]]] = "marked"
		}
	}
}

// markUnderstudy notes which queued messages of this round are marked as spam.
func (f *front) markUnderstudy(t *testing.T, u *lab.Understudy, all []corpus.Sample, outcomes map[string]string) {
	t.Helper()
	c := admin.NewClient(u.Admin)
	defer c.Close()
	bySender := map[string]string{}
	for _, m := range all {
		bySender[m.Sender+" "+m.Recipient+" "+m.Addr.String()+" "+m.HELO] = m.Name
	}
	var ids []string
	if err := c.List(t.Context(), admin.Selection{}, func(m queue.Summary) error { ids = append(ids, m.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if f.seen[id] {
			continue
		}
		f.seen[id] = true
		d, err := c.Show(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		e := d.Envelope
		name := bySender[e.Sender+" "+e.Recipients[0].Address+" "+e.Client.Addr.Addr().String()+" "+e.Client.HELO]
		if name == "" {
			t.Errorf("queued message %s is none of ours", id)
		}
		if e.Verdict != nil && e.Verdict.Spam {
			outcomes[name] = "marked"
		}
	}
}
