package journal_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/spamsync/replica/journal"
	"understudy/spamsync/replica/stream"
)

// labJournal makes the test binary a journal of its own: address and directory.
const labJournal = "LAB_JOURNAL"

func TestMain(m *testing.M) {
	if text := os.Getenv(labJournal); text != "" {
		if err := runJournal(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runJournal(text string) error {
	addr, dir, _ := strings.Cut(text, " ")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	j, err := journal.Open(journal.Options{Dir: dir, Config: journal.DefaultConfig()})
	if err != nil {
		return err
	}
	if err := j.Run(ctx, stream.Options{Addr: addr}); err != nil {
		return err
	}
	return j.Close()
}

// process starts a journal as a process and returns it; it follows when this returns.
func process(t *testing.T, r *servers.KeyValue, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), labJournal+"="+r.Addr+" "+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, 10*time.Second, "the journal follows", func() error {
		if n := field(t, r, "replication", "connected_slaves"); n != 1 {
			return fmt.Errorf("%v replicas", n)
		}
		return nil
	})
	return cmd
}

func field(t *testing.T, r *servers.KeyValue, section, name string) float64 {
	t.Helper()
	for line := range strings.Lines(r.Client.Info(t.Context(), section).Val()) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("INFO has no %s", name)
	return 0
}

// load writes over 16 connections for as long as that, at perSecond (0: as fast as
// it takes), burst writes at a time, and says how many writes there were a second and
// what CPU time of Redis each took, in microseconds.
func load(t *testing.T, r *servers.KeyValue, length time.Duration, perSecond, burst int) (rate, cpu float64) {
	t.Helper()
	const connections = 16
	used := func() float64 { return field(t, r, "cpu", "used_cpu_user") + field(t, r, "cpu", "used_cpu_sys") }
	before, began := used(), time.Now()
	var writes atomic.Int64
	write := func(n int) error {
		_, err := r.Client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for i := range burst {
				key := "RS_" + strconv.Itoa((n+i/2)*7919%50_000)
				if i%2 == 0 {
					p.HIncrBy(t.Context(), key, "S", 1)
				} else {
					p.Expire(t.Context(), key, time.Hour)
				}
			}
			return nil
		})
		return err
	}
	var group errgroup.Group
	for range connections {
		group.Go(func() error {
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			for time.Since(began) < length {
				if perSecond > 0 && float64(writes.Load()) > time.Since(began).Seconds()*float64(perSecond) {
					<-pace.C
					continue
				}
				if err := write(int(writes.Add(int64(burst)))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	n := float64(writes.Load())
	return n / time.Since(began).Seconds(), (used() - before) / n * 1e6
}

// What the journal costs its Redis, and its memory. Rounds with and without it take
// turns; the median counts. LAB_COST is how many seconds a round takes (0.3 otherwise);
// only then is the cost in CPU a criterion, for a short round on a busy machine says
// nothing.
func TestCost(t *testing.T) {
	length, rounds, strict := 300*time.Millisecond, 1, false
	if text := os.Getenv("LAB_COST"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		length, rounds, strict = time.Duration(n)*time.Second, 5, true
	}
	r := servers.Redis(t, "--repl-backlog-size", "64mb", "--repl-backlog-ttl", "0")
	dir := filepath.Join(t.TempDir(), "journal")
	var peak float64
	stop := func(cmd *exec.Cmd) {
		end := now(t, r)
		lab.Wait(t, 10*time.Second, "the journal has everything", func() error {
			text := r.Client.Info(t.Context(), "replication").Val()
			if !strings.Contains(text, fmt.Sprintf("offset=%d,", end.Offset)) && now(t, r).Offset < end.Offset {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				kb, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
				if err != nil {
					t.Fatal(err)
				}
				peak = max(peak, kb/1024)
			}
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	stop(process(t, r, dir)) // from here on Redis has a backlog in every round
	// One write at a time as separate clients send them, and 200 as a learn does.
	for _, burst := range []int{1, 200} {
		var cpu, rate [2][]float64
		load(t, r, length, 0, burst)
		for range rounds {
			for with := range 2 {
				var cmd *exec.Cmd
				if with == 1 {
					cmd = process(t, r, dir)
				}
				_, c := load(t, r, length, 20_000, burst)
				n, _ := load(t, r, length, 0, burst)
				cpu[with] = append(cpu[with], c)
				rate[with] = append(rate[with], n)
				if cmd != nil {
					stop(cmd)
				}
			}
		}
		median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
		without, with := median(cpu[0]), median(cpu[1])
		t.Logf("%d at a time, 20000 writes/s: Redis takes %.2f us of CPU a write without, %.2f with the journal: %+.1f %%, or %+.2f %% of a core",
			burst, without, with, 100*(with/without-1), (with-without)*2)
		t.Logf("%d at a time, as fast as it takes: %.0f writes/s without, %.0f with the journal", burst, median(rate[0]), median(rate[1]))
		if strict && (with-without)*2 >= 5 { // microseconds a write, 20000 writes: per cent of the thread that Redis has
			t.Errorf("the journal costs %.1f %% of what Redis can do", (with-without)*2)
		}
	}
	t.Logf("the journal's process takes %.1f MiB at most", peak)
	// The race detector's shadow memory is not the journal's.
	limit := 32.0
	if raceDetector {
		limit = 96
	}
	if peak >= limit {
		t.Errorf("%.1f MiB of memory, at most %.0f", peak, limit)
	}
}
