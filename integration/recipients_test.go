package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// directoryAddresses is how many addresses exist, and how many are asked for that
// do not.
const directoryAddresses = 100_000

// directorySeed makes the addresses.
const directorySeed = 20261124

// TestRecipientsWhilePrimaryIsDead: half of the addresses come from one of
// Postfix's own maps by command, half from a file. Primary, map and file vanish,
// the daemon crashes and starts again; every address that exists is still
// accepted, and every one that does not is refused.
func TestRecipientsWhilePrimaryIsDead(t *testing.T) {
	t.Parallel()
	require.Command(t, "postmap")
	known, unknown := makeAddresses()
	inMap, inFile := known[:len(known)/2], known[len(known)/2:]
	table := makeMap(t, inMap)
	backup := lab.NewUnderstudy(t, "smtp://"+lab.FreeAddr(t), lab.Settings{
		"domains":                 []string{"example.test", "second.test"},
		"smtp.max_bad_recipients": 10_000_000, "smtp.max_idle_commands": 10_000, "smtp.limits.recipients_per_minute": 0,
		"log.level": "warn", // it writes a line for each refusal otherwise
		"smtp.recipients.sources": []map[string]any{{
			"name": "map", "source": "command", "format": "postmap",
			"command": []string{find(t, "postmap"), "-c", filepath.Dir(table), "-s", "hash:" + table},
		}},
	})
	list := filepath.Join(backup.Dir, "recipients")
	if err := os.WriteFile(list, []byte(strings.Join(inFile, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	backup.Start()
	lab.Wait(t, 20*time.Second, "the map is read", func() error {
		if got := checkRecipient(t, backup, inMap[0]); got.Disposition != "exists" {
			return fmt.Errorf("%s: %+v", inMap[0], got)
		}
		return nil
	})

	for _, path := range []string{list, table, table + ".db"} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	backup.Kill()
	backup.Start()

	start := time.Now()
	wrong := askAll(t, backup.SMTP, known, unknown)
	took := time.Since(start)
	t.Logf("%d addresses that exist and %d that do not: %d wrong answers, %.0f answers a second",
		len(known), len(unknown), len(wrong), float64(len(known)+len(unknown))/took.Seconds())
	for i, w := range wrong {
		if t.Errorf("%s", w); i == 10 {
			break
		}
	}

	// And the daemon says why.
	for address, want := range map[string]string{
		inMap[1]:   "exists: a source has it; file: no; map: yes, matched " + inMap[1],
		inFile[1]:  "exists: a source has it; file: yes, matched " + inFile[1] + "; map: no",
		unknown[0]: "unknown: all sources are fresh and none has it; file: no; map: no",
	} {
		got := checkRecipient(t, backup, address)
		text := got.Disposition + ": " + got.Reason
		for _, s := range got.Sources {
			text += "; " + s.Name + ": " + s.Answer
			if s.Answer == "yes" {
				text += ", " + s.Detail
			}
			if s.Stale || s.Loaded.IsZero() || s.Loaded.After(start) {
				t.Errorf("%s: source %+v", address, s)
			}
		}
		if text != want {
			t.Errorf("check %s: %q, want %q", address, text, want)
		}
	}
	backup.Stop()
}

// TestShrunkSourceWaitsForApproval: a list that suddenly lost most of its
// addresses counts only after somebody has said that it is right.
func TestShrunkSourceWaitsForApproval(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, "user%d@example.test\n", i)
	}
	backup := lab.NewUnderstudy(t, "smtp://"+lab.FreeAddr(t), nil)
	list := filepath.Join(backup.Dir, "recipients")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(list+".new", list); err != nil {
			t.Fatal(err)
		}
	}
	write(many.String())
	backup.Start()
	wantRcpt(t, backup.SMTP, map[string]string{"user99@example.test": "250 2.1.5", "new@example.test": "550 5.1.1"})

	write("user0@example.test\nnew@example.test\n")
	lab.Wait(t, 20*time.Second, "what is new counts at once", func() error {
		if reply := rcpt(t, backup.SMTP, "new@example.test"); reply.Code != 250 {
			return fmt.Errorf("%+v", reply)
		}
		return nil
	})
	wantRcpt(t, backup.SMTP, map[string]string{"user99@example.test": "250 2.1.5"})
	if out, _ := backup.CLI("status"); !strings.Contains(out, "lost 98 of 100 addresses") {
		t.Errorf("status does not say what waits:\n%s", out)
	}
	if out, code := backup.CLI("recipients", "approve", "file"); code != 0 {
		t.Fatal(out)
	}
	wantRcpt(t, backup.SMTP, map[string]string{"user99@example.test": "550 5.1.1", "user0@example.test": "250 2.1.5"})
	backup.Stop()
}

// makeAddresses makes those that exist and as many that do not: most of these
// are an existing address with a letter more, less or changed, or at another of
// our domains.
func makeAddresses() (known, unknown []string) {
	rnd := rand.New(rand.NewPCG(directorySeed, 0))
	given := []string{"anna", "bob", "carla", "d", "emil", "friederike", "gus", "h.j", "ingo", "jo-ann"}
	family := []string{"meyer", "smith", "o-neill", "van.dyk", "x", "garcia_lopez", "nguyen", "kowalska"}
	taken := make(map[string]bool)
	add := func(list *[]string, address string) {
		if !taken[address] {
			taken[address] = true
			*list = append(*list, address)
		}
	}
	for len(known) < directoryAddresses {
		local := fmt.Sprintf("%s.%s%d", given[rnd.IntN(len(given))], family[rnd.IntN(len(family))], rnd.IntN(1_000_000))
		domain := "example.test"
		if rnd.IntN(3) == 0 {
			domain = "second.test"
		}
		add(&known, local+"@"+domain)
	}
	other := strings.NewReplacer("example.test", "second.test", "second.test", "example.test")
	for len(unknown) < directoryAddresses {
		address := known[rnd.IntN(len(known))]
		local, domain, _ := strings.Cut(address, "@")
		cut := rnd.IntN(len(local))
		switch rnd.IntN(5) {
		case 0:
			address = other.Replace(address)
		case 1:
			address = local[:len(local)-1] + "@" + domain
		case 2:
			address = local + "7@" + domain
		case 3:
			address = local[:cut] + "q" + local[cut+1:] + "@" + domain
		case 4:
			address = fmt.Sprintf("%x+%s@%s", rnd.Uint64(), local, domain)
		}
		add(&unknown, address)
	}
	return known, unknown
}

// makeMap makes one of Postfix's hash maps, as virtual_mailbox_maps.
func makeMap(t *testing.T, addresses []string) (path string) {
	t.Helper()
	dir := lab.Dir(t)
	path = filepath.Join(dir, "vmailbox")
	var text strings.Builder
	for _, a := range addresses {
		local, _, _ := strings.Cut(a, "@")
		fmt.Fprintf(&text, "%s\t%s/\n", a, local)
	}
	for name, content := range map[string]string{
		path: text.String(), filepath.Join(dir, "main.cf"): "compatibility_level = 3.6\n",
	} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), find(t, "postmap"), "-c", dir, "hash:"+path).CombinedOutput(); err != nil {
		t.Fatalf("postmap: %v: %s", err, out)
	}
	return path
}

func find(t *testing.T, name string) string {
	t.Helper()
	path, err := require.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// question is an address and whether it exists.
type question struct {
	address string
	exists  bool
}

// askAll asks for all addresses, shuffled, in every spelling that does not
// matter, over several connections, and returns the wrong answers.
func askAll(t *testing.T, addr string, known, unknown []string) (wrong []string) {
	t.Helper()
	var all []question
	for i, a := range known {
		switch local, domain, _ := strings.Cut(a, "@"); i % 4 {
		case 1:
			a = strings.ToUpper(local) + "@" + domain
		case 2:
			a = local + "+list@" + strings.ToUpper(domain)
		}
		all = append(all, question{a, true})
	}
	for _, a := range unknown {
		all = append(all, question{a, false})
	}
	rnd := rand.New(rand.NewPCG(directorySeed, 1))
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })

	const connections = 8
	var mu sync.Mutex
	var workers sync.WaitGroup
	share := len(all) / connections
	for n := range connections {
		mine := all[n*share : (n+1)*share]
		workers.Go(func() {
			bad, err := askSome(t, addr, mine)
			mu.Lock()
			defer mu.Unlock()
			wrong = append(wrong, bad...)
			if err != nil {
				wrong = append(wrong, err.Error())
			}
		})
	}
	workers.Wait()
	return wrong
}

// askSome asks on one connection, 500 recipients to a transaction that is never
// finished, all of them sent before the first answer is read.
func askSome(t *testing.T, addr string, questions []question) (wrong []string, err error) {
	t.Helper()
	c, err := lab.Dial(t.Context(), addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for len(questions) > 0 {
		batch := questions[:min(500, len(questions))]
		questions = questions[len(batch):]
		var commands strings.Builder
		commands.WriteString("MAIL FROM:<sender@ext.test>\r\n")
		for _, q := range batch {
			fmt.Fprintf(&commands, "RCPT TO:<%s>\r\n", q.address)
		}
		commands.WriteString("RSET\r\n")
		if err := c.Write([]byte(commands.String())); err != nil {
			return wrong, err
		}
		if _, err := c.Expect(250); err != nil {
			return wrong, err
		}
		for _, q := range batch {
			reply, err := c.Expect(250)
			if _, refused := errors.AsType[*lab.ReplyError](err); err != nil && !refused {
				return wrong, err
			}
			if right := reply.Code == 250 || reply.Code == 550 && strings.HasPrefix(reply.Text, "5.1.1 "); !right || q.exists != (reply.Code == 250) {
				wrong = append(wrong, fmt.Sprintf("%s (exists: %v): %d %s", q.address, q.exists, reply.Code, reply.Text))
			}
		}
		if _, err := c.Expect(250); err != nil {
			return wrong, err
		}
	}
	return wrong, nil
}
