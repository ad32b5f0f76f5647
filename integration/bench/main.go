// Command bench compares understudy with Postfix at a backup MX's own work, in
// one run, cell by cell and in turn, and prints medians and ratios.
//
// Both run on this machine, on loopback, with the same load (smtp-source), the
// same next hop and no TLS. Postfix puts every message on HOLD at end of data,
// so that only accepting and syncing counts; understudy's next hop is dead
// meanwhile. Each cell checks that nothing was lost: what was answered 250 is in
// the queue, and what left the queue is at the next hop.
//
// It needs root, Postfix and a machine without other work:
//
//	go run ./integration/bench -out docs/results/bench-mx.md
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// options are the command's flags.
type options struct {
	out    string
	rounds int
	scale  float64
	only   string
	rows   string
}

func main() {
	os.Exit(realMain())
}

func realMain() int {
	var o options
	flag.StringVar(&o.out, "out", "", "write the table to this file as well (Markdown)")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds per cell; the median counts")
	flag.Float64Var(&o.scale, "scale", 1, "multiply the number of messages, for a quick look")
	flag.StringVar(&o.only, "only", "", "measure one system only: postfix or understudy")
	flag.StringVar(&o.rows, "rows", "", "measure only rows whose name contains this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, name := range []string{"postfix", "smtp-source"} {
		if _, err := require.Find(name); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %v (make test-setup installs what is needed)\n", err)
			return 1
		}
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: a private Postfix needs root")
		return 1
	}
	scratch, err := os.MkdirTemp("", "bench")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if err := os.Setenv(lab.BinaryEnv, filepath.Join(scratch, "understudy")); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	limits, err := measureLimits(ctx, scratch, 1, 10, 50, 200)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: measure limits:", err)
		return 1
	}
	results, err := run(ctx, o)
	text := markdown(o, results, limits)
	_, _ = os.Stdout.WriteString("\n" + text)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
	}
	return 0
}

// run measures every cell, each system in turn within a round.
func run(ctx context.Context, o options) ([]result, error) {
	var results []result
	for _, c := range cells() {
		if !strings.Contains(c.name, o.rows) {
			continue
		}
		r := result{cell: c, samples: map[string][]float64{}, memory: map[string][]float64{}}
		for round := range o.rounds {
			if c.once && round > 0 {
				break
			}
			for _, name := range []string{"postfix", "understudy"} {
				if o.only != "" && o.only != name {
					continue
				}
				sample, err := one(ctx, c, name, o.scale)
				if err != nil {
					return results, fmt.Errorf("%s, %s: %w", c.name, name, err)
				}
				r.add(name, sample)
				fmt.Fprintf(os.Stderr, "%-58s %-10s %s\n", c.name, name, sample)
			}
		}
		results = append(results, r)
	}
	return results, nil
}

// one measures one cell of one system, in a fresh instance.
func one(ctx context.Context, c cell, name string, scale float64) (s sample, err error) {
	h := lab.NewProgram(ctx, "bench-mx")
	defer func() {
		if e := h.End(recover()); err == nil {
			err = e
		}
	}()
	return c.measure(h, newSystem(h, name), scale), nil
}

// machine describes where the figures come from.
func machine() string {
	var facts []string
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				facts = append(facts, strings.TrimSpace(value))
				break
			}
		}
	}
	facts = append(facts, fmt.Sprintf("%d CPUs", runtime.NumCPU()))
	var uname syscall.Utsname
	if syscall.Uname(&uname) == nil {
		facts = append(facts, "Linux "+chars(uname.Release))
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		first, _, _ := strings.Cut(string(text), "\n")
		facts = append(facts, strings.Join(strings.Fields(first), " "))
	}
	return strings.Join(facts, ", ")
}

func chars(in [65]int8) string {
	var b strings.Builder
	for _, c := range in {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

// today is the date of a run.
func today() string { return time.Now().Format("2006-01-02 15:04 MST") }
