package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// result is a row with all its measurements.
type result struct {
	cell    cell
	samples map[string][]float64
	memory  map[string][]float64
	beyond  map[string]bool
}

func (r *result) add(name string, s sample) {
	r.samples[name] = append(r.samples[name], s.value)
	if s.memory > 0 {
		r.memory[name] = append(r.memory[name], s.memory)
	}
	if s.beyond {
		if r.beyond == nil {
			r.beyond = map[string]bool{}
		}
		r.beyond[name] = true
	}
}

// median is 0 where nothing was measured.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// spread is "median (least-most)".
func spread(values []float64, u unit, beyond bool) string {
	if len(values) == 0 {
		return "-"
	}
	format := "%.0f"
	if u == seconds {
		format = "%.2f"
	}
	text := fmt.Sprintf(format+" "+string(u), median(values))
	if beyond {
		text = "> " + text
	}
	if len(values) > 1 {
		text += fmt.Sprintf(" ("+format+"-"+format+")", slices.Min(values), slices.Max(values))
	}
	return text
}

// ratio says how many times better understudy is.
func ratio(theirs, ours float64, u unit, beyond bool) string {
	if theirs == 0 || ours == 0 {
		return "-"
	}
	r := ours / theirs
	if u != perSecond {
		r = theirs / ours
	}
	text := fmt.Sprintf("%.1fx", r)
	if beyond {
		text = "> " + text
	}
	return text
}

// markdown is the whole result page.
func markdown(o options, results []result, limits []limit) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Against Postfix at a backup MX's own work\n\n")
	fmt.Fprintf(&b, "Measured %s by `go run ./integration/bench %s`.\n\n", today(), strings.Join(os.Args[1:], " "))
	fmt.Fprintf(&b, "- Machine: %s.\n- Postfix %s, understudy %s.\n", machine(), version("postconf", "-dh", "mail_version"), version("git", "describe", "--always", "--dirty"))
	fmt.Fprintf(&b, "- Medians of %d rounds (least-most), both systems in turn in every round, fresh instances; load: smtp-source. No TLS, no DNS, loopback.\n", o.rounds)
	b.WriteString("- Accept: Postfix holds every message at end of data, understudy's next hop is dead; only accepting and syncing counts. Every message answered 250 was found in the queue.\n")
	b.WriteString("- Drain: 5,000 messages of 4 KiB to a next hop with PIPELINING and CHUNKING; the delay is a user-space TCP proxy. Every message arrived once, the queue was empty.\n")
	fmt.Fprintf(&b, "- First delivery: the primary is away for %v; from its return to the first message. Nobody waited longer than %v.\n\n", outage, firstWait)
	b.WriteString("| measure | Postfix | understudy | understudy is better by | target |\n|---|---|---|---|---|\n")
	for _, r := range results {
		theirs, ours := r.samples["postfix"], r.samples["understudy"]
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.cell.name,
			spread(theirs, r.cell.unit, r.beyond["postfix"]), spread(ours, r.cell.unit, r.beyond["understudy"]),
			ratio(median(theirs), median(ours), r.cell.unit, r.beyond["postfix"]), r.cell.target)
	}
	for _, r := range results {
		theirs, ours := r.memory["postfix"], r.memory["understudy"]
		if len(theirs)+len(ours) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| peak memory (PSS): %s | %s | %s | %s | |\n", strings.TrimPrefix(r.cell.name, "durable accept, "),
			spread(theirs, mebibytes, false), spread(ours, mebibytes, false), ratio(median(theirs), median(ours), mebibytes, false))
	}
	b.WriteString("\n## What the machine allows\n\nMessages of 4 KiB, in the same run before the first cell. The disk: blocks without mail or protocol, synced. The load generator: smtp-source, connections reused, to a sink that stores nothing.\n\n")
	b.WriteString("| writers | disk: one log, group commit | disk: one file per message | load generator |\n|---|---|---|---|\n")
	for _, l := range limits {
		fmt.Fprintf(&b, "| %d | %.0f msg/s | %.0f msg/s | %.0f msg/s |\n", l.writers, l.groupCommit, l.filePerMessage, l.generator)
	}
	return b.String()
}

func version(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output() //nolint:noctx // asks for a version
	if err != nil {
		return "(unknown version)"
	}
	return strings.TrimSpace(string(out))
}
