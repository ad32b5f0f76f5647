// Command bench-tunnel compares the ways of a client to the server at the other
// site: direct, through haproxy by TCP, through two haproxies by mutual TLS, and
// through understudy, in turn in one run, and prints medians.
//
// All run on this machine. The line between the sites is loopback, or a proxy that
// hands every byte on half a round trip later; it has no loss and no limit on
// bandwidth. The server speaks first, as SMTP and IMAP do.
//
//	go run ./integration/bench-tunnel -out docs/results/bench-tunnel.md
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
)

type options struct {
	out    string
	rounds int
	scale  float64
	rows   string
	only   string
}

func main() { os.Exit(realMain()) }

func realMain() int {
	var o options
	flag.StringVar(&o.out, "out", "", "write the table to this file as well (Markdown)")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds per cell; the median counts")
	flag.Float64Var(&o.scale, "scale", 1, "multiply amounts, for a quick look")
	flag.StringVar(&o.rows, "rows", "", "measure only rows whose name contains this")
	flag.StringVar(&o.only, "only", "", "measure one system only")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if _, err := require.Find("haproxy"); err != nil {
		fmt.Fprintf(os.Stderr, "bench-tunnel: %v (make test-setup installs what is needed)\n", err)
		return 1
	}
	scratch, err := os.MkdirTemp("", "bench")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-tunnel:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if err := os.Setenv(lab.BinaryEnv, filepath.Join(scratch, "understudy")); err != nil {
		fmt.Fprintln(os.Stderr, "bench-tunnel:", err)
		return 1
	}
	text, err := run(ctx, o)
	_, _ = os.Stdout.WriteString("\n" + text)
	if err == nil && o.out != "" {
		err = os.WriteFile(o.out, []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-tunnel:", err)
		return 1
	}
	return 0
}

// run measures every cell, each system in turn within a round, and makes the table.
func run(ctx context.Context, o options) (string, error) {
	var out strings.Builder
	fmt.Fprintf(&out, "# Tunnel: set-up, throughput, memory\n\nWritten by `make bench-tunnel` on %s: %d processors, %s, kernel %s. Median of %d rounds",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), kernel(), o.rounds)
	if o.scale != 1 {
		fmt.Fprintf(&out, ", amounts times %g", o.scale)
	}
	fmt.Fprintf(&out, "; load %s at the start.\n", load())
	out.WriteString("The line of 20 ms has neither loss nor a limit on bandwidth. CPU is that of entry and exit.\n\n| |")
	for _, s := range systems() {
		fmt.Fprintf(&out, " %s |", s)
	}
	out.WriteString("\n|---|" + strings.Repeat("---|", len(systems())) + "\n")
	for _, c := range cells() {
		if !strings.Contains(c.name, o.rows) {
			continue
		}
		samples := map[string][][]float64{}
		for range o.rounds {
			for _, name := range systems() {
				if o.only != "" && o.only != name {
					continue
				}
				f, err := one(ctx, c, name, o.scale)
				if err != nil {
					return out.String(), fmt.Errorf("%s, %s: %w", c.name, name, err)
				}
				fmt.Fprintf(os.Stderr, "%-52s %-12s %.2f\n", c.name, name, f.values)
				samples[name] = append(samples[name], f.values)
			}
		}
		fmt.Fprintf(&out, "| %s |", c.name)
		for _, name := range systems() {
			fmt.Fprintf(&out, " %s |", medians(samples[name]))
		}
		out.WriteString("\n")
	}
	return out.String(), nil
}

// one measures one cell of one system, in a fresh instance.
func one(ctx context.Context, c cell, name string, scale float64) (f figure, err error) {
	h := lab.NewProgram(ctx, "bench-tunnel")
	defer func() {
		if e := h.End(recover()); err == nil {
			err = e
		}
	}()
	b, err := startBackend()
	if err != nil {
		return figure{}, err
	}
	h.Cleanup(b.close)
	s := startSystem(h, name, b.addr(), c.rtt)
	pause(2 * time.Second)
	return c.measure(h, s, scale)
}

// medians joins the median of each value.
func medians(samples [][]float64) string {
	if len(samples) == 0 {
		return "-"
	}
	var words []string
	for i := range samples[0] {
		var v []float64
		for _, s := range samples {
			v = append(v, s[i])
		}
		slices.Sort(v)
		m := v[len(v)/2]
		switch {
		case m >= 100:
			words = append(words, fmt.Sprintf("%.0f", m))
		case m >= 10:
			words = append(words, fmt.Sprintf("%.1f", m))
		default:
			words = append(words, fmt.Sprintf("%.2f", m))
		}
	}
	return strings.Join(words, ", ")
}

func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:1], " ")
}
