package merge_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"understudy/integration/lab"
	"understudy/spamsync/replica/journal"
	"understudy/spamsync/replica/merge"
	"understudy/spamsync/replica/stream"
)

// job is a merge in a process of its own, which the tests kill.
type job struct {
	Home, Follower string // addresses; no Follower: it is dead
	Journal        string // directory; empty: the follower's backlog
	Fork, To       stream.Point
	Origin, Target string
}

// labMerge carries a job to the test binary that is started again.
const labMerge = "LAB_MERGE"

func TestMain(m *testing.M) {
	if text := os.Getenv(labMerge); text != "" {
		if err := runJob(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runJob(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	o := merge.Options{
		Home: redis.NewClient(&redis.Options{Addr: j.Home, MaxRetries: -1}), Fork: j.Fork, To: j.To,
		Origin: j.Origin, Target: j.Target, BatchCommands: 15,
		OnBatch: func(r merge.Report) {
			_, _ = fmt.Fprintln(os.Stdout, "batch", r.Batches)
			<-time.After(2 * time.Millisecond) // so that the kill meets different moments of the next batch
		},
	}
	if j.Follower != "" {
		o.Follower = redis.NewClient(&redis.Options{Addr: j.Follower, MaxRetries: -1})
	}
	o.Source = stream.Backlog{Options: stream.Options{Addr: j.Follower}}
	if j.Journal != "" {
		kept, err := journal.Open(journal.Options{Dir: j.Journal, Config: journal.DefaultConfig()})
		if err != nil {
			return err
		}
		o.Source = merge.FirstOf(kept, o.Source)
	}
	report, err := merge.Merge(context.Background(), o)
	if err == nil && report.UnknownCommands > 0 {
		err = fmt.Errorf("unknown: %+v", report.Unknown)
	}
	return err
}

// run runs the job and kills it after that many batches; 0: not at all. It says
// whether the job ended by itself.
func (j job) run(t *testing.T, batches int) bool {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), labMerge+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if seen++; seen == batches {
			_ = cmd.Process.Kill()
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 || err != nil && exit == nil {
		t.Fatal(err)
	}
	return err == nil
}

// pair is a master, a replica of it, and one Redis that sees everything.
type pair struct {
	t         *testing.T
	rng       *rand.Rand
	a, b, one *site
	at        int64
	changed   map[string]bool
	ops       int
}

func newPair(t *testing.T, seed uint64) *pair {
	t.Helper()
	p := &pair{t: t, rng: rand.New(rand.NewPCG(seed, 5)), a: newSite(t, "a"), one: newSite(t, "one"), at: 1000, changed: make(map[string]bool)}
	host, port, _ := net.SplitHostPort(p.a.server.Addr)
	p.b = newSite(t, "b")
	p.b.do("REPLICAOF", host, port)
	return p
}

// synced waits until the replica has everything.
func (p *pair) synced() {
	p.t.Helper()
	lab.Wait(p.t, 20*time.Second, "the replica has everything", func() error {
		if a, b := p.a.now(), p.b.now(); a != b {
			return fmt.Errorf("%v and %v", a, b)
		}
		return nil
	})
}

func (p *pair) do(s *site, st step) {
	p.at++
	if st.Op == "learn" && s != p.one {
		// Rspamd's digests carry no time, so a site changes its mind once.
		id := s.name + strconv.Itoa(st.D)
		if p.changed[id+st.Class] || !p.changed[id] {
			p.changed[id], p.changed[id+st.Class] = true, true
		} else {
			return
		}
	}
	p.ops++
	if st.on(s, p.at) {
		st.on(p.one, p.at)
	}
}

func (p *pair) step() step {
	ops := []string{"learn", "learn", "learn", "teach", "teach", "grey", "counter", "fuzzy", "neural", "history"}
	class := "spam"
	if p.rng.IntN(2) == 0 {
		class = "ham"
	}
	return step{Op: ops[p.rng.IntN(len(ops))], D: p.rng.IntN(60), Class: class, N: 1 + p.rng.Int64N(9)}
}

// diverge does n things at both sites, and history under each site's name.
func (p *pair) diverge(n int) {
	for range n {
		s, st := p.a, p.step()
		if st.AtB = p.rng.IntN(2) == 0; st.AtB {
			s = p.b
		}
		p.do(s, st)
	}
}

// begin makes a common past and parts the sites; the fork is what b has of a.
func (p *pair) begin() stream.Point {
	p.t.Helper()
	for range 40 {
		p.do(p.a, p.step())
	}
	clear(p.changed)
	p.synced()
	fork := p.b.now()
	p.b.do("REPLICAOF", "NO", "ONE")
	// A message taught at both sites, and one in opposite classes.
	for _, s := range []*site{p.a, p.b} {
		p.do(s, step{Op: "learn", D: 100, Class: "spam"})
		p.do(s, step{Op: "teach", D: 100, Class: "spam"})
	}
	for _, op := range []string{"learn", "teach"} {
		p.do(p.a, step{Op: op, D: 101, Class: "spam"})
		p.do(p.b, step{Op: op, D: 101, Class: "ham"})
	}
	return fork
}

// compare compares a home with the one Redis that saw everything.
func (p *pair) compare(home *site) {
	p.t.Helper()
	if diff := cmp.Diff(p.one.values(), home.values()); diff != "" {
		p.t.Errorf("after %d operations one Redis (-) and home (+) differ:\n%s", p.ops, diff)
	}
}

// seeds are those of this run: 3, or as many as LAB_SEEDS says.
func seeds(t *testing.T) int {
	t.Helper()
	n := 3
	if text := os.Getenv("LAB_SEEDS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// Two sites part; the old master crashes, comes back from an older save, works on
// and returns; its merge is killed again and again. Nothing is lost or counted twice.
func TestReturnOfACrashedMaster(t *testing.T) {
	t.Parallel()
	for seed := range seeds(t) {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, uint64(seed))
			dir := t.TempDir()
			j, err := journal.Open(journal.Options{Dir: dir, Config: journal.DefaultConfig()})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- j.Run(ctx, p.a.options()) }()
			lab.Wait(t, 10*time.Second, "the journal follows", func() error {
				if s := j.Status(); !s.Following {
					return errors.New(s.Err)
				}
				return nil
			})
			caughtUp := func() {
				lab.Wait(t, 10*time.Second, "the journal has everything", func() error {
					if s, now := j.Status(), p.a.now(); s.End != now {
						return fmt.Errorf("%v and %v", s.End, now)
					}
					return nil
				})
			}
			fork := p.begin()
			p.diverge(60)
			lab.Wait(t, 10*time.Second, "a is saved", func() error { return p.a.server.Client.Save(t.Context()).Err() })
			p.diverge(80)
			caughtUp() // what was acknowledged in the last 50 ms may die with the server
			p.a.server.Kill()
			p.a.server.Start()
			p.diverge(60)
			caughtUp()
			to := p.a.now()
			cancel()
			if err := errors.Join(<-ended, j.Close()); err != nil {
				t.Fatal(err)
			}
			work := job{Home: p.b.server.Addr, Follower: p.a.server.Addr, Journal: dir, Fork: fork, To: to, Origin: "a", Target: "b"}
			kills := 0
			for !work.run(t, 1+p.rng.IntN(4)) {
				if kills++; kills == 3 { // and the returning server dies for good
					p.a.server.Kill()
					work.Follower = ""
				}
			}
			if kills < 3 {
				t.Errorf("killed %d times only", kills)
			}
			t.Logf("%d operations, killed %d times", p.ops, kills)
			p.compare(p.b)
			before := p.b.state()
			work.run(t, 0)
			if diff := cmp.Diff(before, p.b.state()); diff != "" {
				t.Errorf("merging again changed:\n%s", diff)
			}
		})
	}
}

// Half of a is merged into b when home moves to a: b is merged into a, and what came
// from a does not come back.
func TestHomeMoves(t *testing.T) {
	t.Parallel()
	for seed := range seeds(t) {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, 100+uint64(seed))
			fork := p.begin()
			p.diverge(150)
			there := job{Home: p.b.server.Addr, Follower: p.a.server.Addr, Fork: fork, To: p.a.now(), Origin: "a", Target: "b"}
			if there.run(t, 5+p.rng.IntN(8)) {
				t.Fatal("the merge was not interrupted")
			}
			p.diverge(40)
			back := job{Home: p.a.server.Addr, Follower: p.b.server.Addr, Fork: fork, Origin: "b", Target: "a"}
			for !back.run(t, 1+p.rng.IntN(8)) {
			}
			p.compare(p.a)
		})
	}
}

// A home that lost its data is not merged into.
func TestHomeRestartedEmpty(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1)
	fork := p.begin()
	p.diverge(20)
	p.b.server.Kill()
	if err := os.Remove(filepath.Join(p.b.server.Dir, "dump.rdb")); err != nil {
		t.Fatal(err)
	}
	p.b.server.Start()
	_, err := p.a.mergeInto(p.b, fork)
	if !errors.Is(err, merge.ErrHomeEmpty) {
		t.Error(err)
	}
	if n := p.b.server.Client.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("%d keys were written", n)
	}
}
