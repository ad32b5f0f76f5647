package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with the configuration.
type Fault struct {
	// File and Line say where in the file; Line is 0 where the fault has no line
	// (a missing key, an environment variable).
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Env is the environment variable at fault, where it was one.
	Env string `json:"env,omitempty"`
	// Key is the dotted key, "smtp.queue.lifetime"; empty for a fault of the
	// whole file.
	Key string `json:"key,omitempty"`
	// Text says what is wrong and what to write instead.
	Text string `json:"text"`
}

// String formats the fault as "file:line: key: text", leaving out what is not
// known.
func (f Fault) String() string {
	var b strings.Builder
	switch {
	case f.Env != "":
		b.WriteString(f.Env + ": ")
	case f.Line > 0:
		fmt.Fprintf(&b, "%s:%d: ", f.File, f.Line)
	case f.File != "":
		b.WriteString(f.File + ": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Text)
	return b.String()
}

// Error is a configuration that cannot be used. It holds every fault, those
// with a line first, in the order of the file.
type Error struct {
	Faults []Fault
}

// Error implements error: one fault a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// sortFaults orders faults: by line, then those without a line, then those of
// the environment; equal faults are kept once.
func sortFaults(faults []Fault) []Fault {
	rank := func(f Fault) int {
		switch {
		case f.Env != "":
			return 2
		case f.Line == 0 && f.Key != "":
			return 1
		default:
			return 0
		}
	}
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Key, b.Key), cmp.Compare(a.Env, b.Env))
	})
	return slices.Compact(faults)
}
