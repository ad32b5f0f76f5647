package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
	"understudy/smtp/wire/probe"
)

// postfixLimit is how long Postfix may take to deliver what is due.
const postfixLimit = 20 * time.Second

// TestBesidePostfix keeps Postfix on port 25 of the secondary, with the lines of
// docs/postfix.md: it asks understudy who exists and where mail goes, while the
// primary is dead, while the sources are stale, and after understudy's own death.
func TestBesidePostfix(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Command(t, "postfix", "postmap")
	primary := lab.FreeAddr(t) // nobody listens there
	backup, front := besidePostfix(t, "smtp://"+primary, "front", nil)
	wantRcpt(t, front.Addr, map[string]string{
		"alice@example.test":      "250 2.1.5",
		"ALICE@Example.Test":      "250 2.1.5",
		"alice+x@example.test":    "250 2.1.5",
		"postmaster@example.test": "250 2.1.5",
		"nobody@example.test":     "550 5.1.1",
		"nobody+x@example.test":   "550 5.1.1",
		"nobody@exact.test":       "550 5.1.1",
		"alice@foreign.test":      "554 5.7.1",
		"alice@sub.example.test":  "554 5.7.1",
	})

	// What it takes waits for the primary, and goes where understudy says.
	ledger := lab.NewLedger()
	sendSome(t, front.Addr, mail(11, 50<<10), ledger, 0, 5)
	waitDeferred(t, front, 5)
	sink := lab.StartSink(t, lab.SinkConfig{Addr: primary, Keep: true})
	front.Release()
	sink.WaitCount(t, 5, postfixLimit)
	audit(t, ledger, sink.Bodies(), false)

	// The list is older than max_age: "no" is not sure any more, except where
	// the operator says so.
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(filepath.Join(backup.Dir, "recipients"), old, old); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, 30*time.Second, "the list is stale", func() error {
		if got := checkRecipient(t, backup, "nobody@example.test"); got.Disposition != "unsure" {
			return fmt.Errorf("nobody is %+v", got)
		}
		return nil
	})
	wantRcpt(t, front.Addr, map[string]string{
		"alice@example.test":  "250 2.1.5",
		"nobody@example.test": "450 4.1.1",
		"nobody@exact.test":   "550 5.1.1",
		"alice@foreign.test":  "554 5.7.1",
	})

	// Without understudy nothing is refused for good, whether or not Postfix's
	// daemons have seen the address before.
	backup.Kill()
	for _, to := range []string{"alice@example.test", "nobody@example.test", "alice+new@example.test", "new@example.test", "new@exact.test", "new@foreign.test"} {
		reply := rcpt(t, front.Addr, to)
		t.Logf("understudy is dead, %s: %d %s", to, reply.Code, reply.Text)
		if reply.Code != 451 && reply.Code != 450 {
			t.Errorf("%s: %d %s", to, reply.Code, reply.Text)
		}
	}

	// And when it is back, Postfix believes it again.
	start := time.Now()
	backup.Start()
	lab.Wait(t, 60*time.Second, "Postfix takes mail again", func() error {
		if reply := rcpt(t, front.Addr, "alice+late@example.test"); reply.Code != 250 {
			return fmt.Errorf("%d %s", reply.Code, reply.Text)
		}
		return nil
	})
	t.Logf("Postfix took mail again %v after understudy's start", time.Since(start).Round(time.Millisecond))
	wantRcpt(t, front.Addr, map[string]string{"late@exact.test": "550 5.1.1", "late@example.test": "450 4.1.1"})
	backup.Stop()
}

// TestPostfixFollowsRoute: mail that Postfix holds goes to the other site while
// that is active, and is delivered locally once this site is.
func TestPostfixFollowsRoute(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Command(t, "postfix", "postmap")
	local := lab.StartSink(t, lab.SinkConfig{Keep: true})
	backup, front := besidePostfix(t, "smtp://"+lab.FreeAddr(t), "front", nil)
	ledger := lab.NewLedger()
	story := mail(12, 50<<10)
	for id := range 3 {
		// Postfix remembers the route of the last address for 30 s, and only that.
		story.To = fmt.Sprintf("alice+%d@example.test", id)
		sendSome(t, front.Addr, story, ledger, id, id+1)
	}
	waitDeferred(t, front, 3)
	backup.Stop()
	backup.Set(lab.Settings{"primary": "b", "smtp.deliver.local": "smtp://" + local.Addr})
	backup.Start()
	var flushed time.Time
	lab.Wait(t, 2*postfixLimit, "all were delivered locally", func() error {
		if n := local.Count(); n < 3 {
			if time.Since(flushed) > 3*time.Second {
				front.Release()
				flushed = time.Now()
			}
			return fmt.Errorf("%d of 3 messages", n)
		}
		return nil
	})
	audit(t, ledger, local.Bodies(), false)
	backup.Stop()
}

// TestBehindPostfix hands everything from Postfix to understudy's queue, which
// tells the primary about the client that Postfix saw.
func TestBehindPostfix(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Command(t, "postfix", "postmap")
	primary := lab.FreeAddr(t)
	backup, front := besidePostfix(t, "smtp://"+primary, "behind", lab.Settings{"smtp.xclient_from": []string{"127.0.0.0/8"}})
	wantRcpt(t, front.Addr, map[string]string{
		"alice@example.test":  "250 2.1.5",
		"nobody@example.test": "550 5.1.1",
		"alice@foreign.test":  "554 5.7.1",
	})
	ledger := lab.NewLedger()
	sendSome(t, front.Addr, mail(13, 50<<10), ledger, 0, 5)
	lab.Wait(t, postfixLimit, "understudy has it all", func() error {
		if n := len(backup.Queue()); n != 5 {
			return fmt.Errorf("%d messages in understudy's queue", n)
		}
		return nil
	})
	if detail, _ := backup.CLI("queue", "show", backup.Queue()[0].ID); !strings.Contains(detail, "HELO client.lab.test") {
		t.Errorf("not the client that Postfix saw:\n%s", detail)
	}
	lab.Wait(t, postfixLimit, "Postfix's queue is empty", func() error {
		if n := front.Queued(); n > 0 {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
	sink := lab.StartSink(t, lab.SinkConfig{Addr: primary, Keep: true})
	sink.WaitCount(t, 5, postfixLimit)
	audit(t, ledger, sink.Bodies(), false)
	waitEmpty(t, backup, postfixLimit)
	backup.Stop()
}

// TestLocalThroughPostfix delivers at the active site through Postfix, so that
// aliases work: one to two mailboxes, and one that names another alias.
func TestLocalThroughPostfix(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Command(t, "postfix")
	tables := lab.Dir(t)
	table := func(name, text string) string {
		path := filepath.Join(tables, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return "texthash:" + path
	}
	main := mainCF(t, "local", nil)
	main["virtual_mailbox_maps"] = table("vmailbox", "ann@example.test ann/\nbob@example.test bob/\n")
	main["virtual_alias_maps"] = table("virtual", "team@example.test ann@example.test, bob@example.test\nall@example.test team@example.test\n")
	postfix := lab.NewPostfix(t, lab.PostfixConfig{Domain: "example.test", Main: main})
	postfix.Start()
	backup := lab.NewUnderstudy(t, "smtp://"+lab.FreeAddr(t), lab.Settings{
		"primary": "b", "smtp.deliver.local": "smtp://" + postfix.Addr,
		"smtp.recipients.format": "postmap",
	})
	backup.Start()
	for i, to := range []string{"team@example.test", "all@example.test", "ann@example.test", "gone@example.test"} {
		if err := send(t, backup.SMTP, to, i); err != nil {
			t.Fatal(err)
		}
	}
	lab.Wait(t, postfixLimit, "both have their mail", func() error {
		ann, bob := mailbox(t, postfix, "ann"), mailbox(t, postfix, "bob")
		if fmt.Sprint(ann, bob) != "map[0:1 1:1 2:1] map[0:1 1:1]" {
			return fmt.Errorf("ann has %v, bob has %v", ann, bob)
		}
		return nil
	})
	// It was told about the client (XFORWARD).
	if log, err := os.ReadFile(filepath.Join(postfix.Dir, "postfix.log")); err != nil || !strings.Contains(string(log), "orig_client=") {
		t.Errorf("Postfix's log names no original client (%v)", err)
	}
	// Postfix's refusal is kept, not bounced to whoever is named as the sender.
	lab.Wait(t, postfixLimit, "only what Postfix refused is left", func() error {
		list := backup.Queue()
		if len(list) != 1 || list[0].State != "refused" {
			return fmt.Errorf("the queue is %+v", list)
		}
		return nil
	})
	backup.Stop()
}

// TestProbes asks the running daemon, and a real Postfix for comparison, all of
// the awkward questions of smtp/wire/probe. understudy must pass each; what
// Debian's Postfix does otherwise is logged, STARTTLS apart, which this one lacks.
func TestProbes(t *testing.T) {
	t.Parallel()
	certificate, key := certificateFiles(t)
	settings := lab.Settings{
		"smtp.tls.certificate": certificate, "smtp.tls.key": key, "smtp.greet_delay": "100ms",
		"smtp.data_timeout": "2s", "smtp.min_data_rate": 10,
	}
	backup := lab.NewUnderstudy(t, "smtp://"+lab.FreeAddr(t), settings)
	if err := os.WriteFile(filepath.Join(backup.Dir, "recipients"), []byte("alice@example.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	backup.Start()
	for name, err := range askProbes(t, backup.SMTP) {
		t.Errorf("%s: %v", name, err)
	}
	if len(backup.Queue()) == 0 {
		t.Error("no probe's message was taken")
	}
	backup.Stop()

	require.Root(t)
	require.Command(t, "postfix")
	postfix := lab.NewPostfix(t, lab.PostfixConfig{Domain: "example.test", Main: map[string]string{
		"virtual_mailbox_maps": "inline:{ { alice@example.test = box/ } }", "message_size_limit": "52428800",
		"smtpd_error_sleep_time": "0", // it only takes time
	}})
	postfix.Start()
	otherwise := askProbes(t, postfix.Addr)
	for name, err := range otherwise {
		t.Logf("Postfix, %q: %v", name, err)
	}
	for _, name := range []string{"nested MAIL is refused", "a truncated DATA is not accepted", "postmaster needs no domain"} {
		if err := otherwise[name]; err != nil {
			t.Errorf("this Postfix is no measure: %s: %v", name, err)
		}
	}
}

// askProbes asks a server all questions at the same time, and returns those it
// did not pass. There must be none that could not be asked.
func askProbes(t *testing.T, addr string) map[string]error {
	t.Helper()
	target := probe.Target{Addr: addr, From: "sender@ext.test", To: "alice@example.test", Unknown: "nobody@example.test"}
	var mu sync.Mutex
	failed := map[string]error{}
	var asking sync.WaitGroup
	for _, p := range probe.Table() {
		asking.Go(func() {
			if err := p.Run(t.Context(), target); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[p.Name] = err
			}
		})
	}
	asking.Wait()
	return failed
}

// certificateFiles makes a certificate that nobody checks.
func certificateFiles(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"backup.lab.test"}}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: public}, key: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// besidePostfix starts understudy, and a Postfix in front of it with the named
// lines of docs/postfix.md. Loopback is a stranger to that Postfix.
func besidePostfix(t *testing.T, toPeer, block string, more lab.Settings) (*lab.Understudy, *lab.Postfix) {
	t.Helper()
	socketmap, policy := lab.FreeAddr(t), lab.FreeAddr(t)
	settings := lab.Settings{
		"domains":                       []string{"example.test", "exact.test"},
		"smtp.recipients.max_age":       "24h",
		"smtp.recipients.domains":       []map[string]string{{"name": "exact.test", "when_stale": "exact"}},
		"smtp.postfix.socketmap_listen": []string{"inet:" + socketmap},
		"smtp.postfix.policy_listen":    []string{"inet:" + policy},
		"smtp.deliver.probe_interval":   "200ms",
		"smtp.queue.retry_first":        "1s",
	}
	maps.Copy(settings, more)
	backup := lab.NewUnderstudy(t, toPeer, settings)
	if err := os.WriteFile(filepath.Join(backup.Dir, "recipients"), []byte("alice@example.test\nAlice@exact.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	backup.Start()
	main := mainCF(t, block, map[string]string{
		"127.0.0.1:7027": socketmap, "127.0.0.1:7028": policy, "[127.0.0.1]:10025": bracketed(backup.SMTP),
	})
	main["mynetworks"] = "192.0.2.1/32"
	main["virtual_mailbox_domains"] = ""
	front := lab.NewPostfix(t, lab.PostfixConfig{Main: main})
	front.Start()
	return backup, front
}

// waitDeferred waits until Postfix has given up on n messages for now.
func waitDeferred(t *testing.T, p *lab.Postfix, n int) {
	t.Helper()
	lab.Wait(t, postfixLimit, "Postfix defers", func() error {
		files := 0
		err := filepath.WalkDir(filepath.Join(p.Dir, "queue", "deferred"), func(_ string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				files++
			}
			return err
		})
		if err == nil && files != n {
			err = fmt.Errorf("%d of %d messages are deferred", files, n)
		}
		return err
	})
}

// bracketed writes host:port as Postfix does where no MX is to be looked up.
func bracketed(addr string) string {
	host, port, _ := strings.Cut(addr, ":")
	return "[" + host + "]:" + port
}

// mainCF reads a block of main.cf's lines from docs/postfix.md, with addresses
// replaced: what is tested is what people paste.
func mainCF(t *testing.T, block string, replace map[string]string) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../docs/postfix.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), "<!-- main.cf "+block+" -->\n```\n")
	if !ok {
		t.Fatalf("docs/postfix.md has no block %q", block)
	}
	text, _, _ = strings.Cut(text, "\n```")
	for from, to := range replace {
		text = strings.ReplaceAll(text, from, to)
	}
	main, last := map[string]string{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch key, value, found := strings.Cut(line, " ="); {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, " "):
			main[last] += " " + strings.TrimSpace(line)
		case found || strings.HasSuffix(line, " ="):
			last = key
			main[key] = strings.TrimSpace(value)
		default:
			t.Fatalf("line %q of the block %q", line, block)
		}
	}
	return main
}

// rcpt asks a server about one recipient, in a session of its own.
func rcpt(t *testing.T, addr, to string) lab.Reply {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	if _, err := c.Command(250, "MAIL FROM:<sender@ext.test>"); err != nil {
		t.Fatal(err)
	}
	reply, err := c.Command(250, "RCPT TO:<%s>", to)
	if _, refused := errors.AsType[*lab.ReplyError](err); err != nil && !refused {
		t.Fatal(err)
	}
	return reply
}

// wantRcpt compares the beginning of each reply, "550 5.1.1".
func wantRcpt(t *testing.T, addr string, want map[string]string) {
	t.Helper()
	for to, code := range want {
		reply := rcpt(t, addr, to)
		if got := fmt.Sprintf("%d %s", reply.Code, reply.Text); !strings.HasPrefix(got, code+" ") {
			t.Errorf("RCPT for %s: %s, want %s", to, got, code)
		}
	}
}

// recipientAnswer is what `recipients check --json` prints.
type recipientAnswer struct {
	Disposition string `json:"disposition"`
	Reason      string `json:"reason"`
	Sources     []struct {
		Name   string    `json:"name"`
		Answer string    `json:"answer"`
		Detail string    `json:"detail"`
		Loaded time.Time `json:"loaded"`
		Stale  bool      `json:"stale"`
	} `json:"sources"`
}

// checkRecipient asks the running daemon why.
func checkRecipient(t *testing.T, u *lab.Understudy, address string) recipientAnswer {
	t.Helper()
	out, _ := u.CLI("recipients", "check", "--json", address)
	var a recipientAnswer
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return a
}

// send sends message number id to one recipient.
func send(t *testing.T, addr, to string, id int) error {
	t.Helper()
	story := mail(14, 20<<10)
	story.To = to
	c := dial(t, addr)
	defer c.Close()
	return c.Send(story.Message(id, lab.Line))
}

// mailbox counts the lab's messages in one of Postfix's mailboxes by number.
func mailbox(t *testing.T, p *lab.Postfix, name string) map[int]int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.Dir, "mail", name, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	count := map[int]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), "X-Lab-Id: ")
		number, _, _ := strings.Cut(after, "\n")
		id, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		count[id]++
	}
	return count
}
