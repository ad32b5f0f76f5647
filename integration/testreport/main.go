// Command testreport runs `go test` once or several times, shows what go test
// itself would show, and ends with the list of skipped tests and their reasons,
// which go test keeps to itself.
//
// Every "--" starts the arguments of one run; all runs happen, whatever the
// earlier ones said. The exit code is 1 when any of them failed.
//
//	go run ./integration/testreport -- -race ./smtp/... -- -p 1 ./integration/...
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	os.Exit(realMain())
}

func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := newReport(os.Stdout)
	code := 0
	for _, args := range runs(os.Args[1:]) {
		if err := r.run(ctx, args); err != nil {
			fmt.Fprintln(os.Stderr, "testreport:", err)
			code = 1
		}
	}
	r.skips()
	return code
}

// runs cuts args at every "--".
func runs(args []string) [][]string {
	var all [][]string
	for _, a := range args {
		if a == "--" {
			all = append(all, nil)
			continue
		}
		if len(all) == 0 {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], a)
	}
	return all
}

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
}

// report collects what the runs say.
type report struct {
	out io.Writer
	// output holds the lines of each test that has not ended, by package and name.
	output  map[string]*strings.Builder
	skipped []string
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[string]*strings.Builder{}}
}

// run runs go test once. An error says that it did not end with code 0.
func (r *report) run(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("open pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start go test: %w", err)
	}
	r.read(stdout)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	return nil
}

// read consumes the events of one run; a line that is no event is shown as it is.
func (r *report) read(in io.Reader) {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				r.take(e)
			} else {
				_, _ = r.out.Write(line)
			}
		}
		if err != nil {
			return
		}
	}
}

func (r *report) take(e event) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "build-output":
		r.print(e.Output)
	case "output":
		if strings.HasPrefix(e.Output, "=== ") {
			return // go test shows the progress of tests only with -v
		}
		if e.Test == "" && summary(e.Output) {
			r.print(e.Output)
			return
		}
		b := r.output[key]
		if b == nil {
			b = &strings.Builder{}
			r.output[key] = b
		}
		b.WriteString(e.Output)
	case "fail":
		r.print(r.text(key))
		delete(r.output, key)
	case "skip":
		if e.Test != "" {
			r.skipped = append(r.skipped, e.Package+" "+e.Test+": "+reason(r.text(key)))
		}
		delete(r.output, key)
	case "pass":
		delete(r.output, key)
	}
}

func (r *report) text(key string) string {
	if b := r.output[key]; b != nil {
		return b.String()
	}
	return ""
}

// summary says whether a package's line is one that go test shows without -v.
func summary(line string) bool {
	for _, prefix := range []string{"ok ", "FAIL\t", "?   ", "\t", "panic:", "-test.shuffle"} {
		if strings.HasPrefix(line, prefix) {
			return prefix != "-test.shuffle" && !strings.Contains(line, "[no test files]")
		}
	}
	return false
}

// reason finds the text of a skip in a test's output.
func reason(output string) string {
	why := "no reason given"
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "--- ") {
			continue
		}
		// file.go:12: text
		if _, text, ok := strings.Cut(line, ": "); ok {
			line = text
		}
		why = line
	}
	return why
}

// skips prints the last lines: how many tests were skipped, and why.
func (r *report) skips() {
	if len(r.skipped) == 0 {
		r.print("skipped: nothing\n")
		return
	}
	r.print(fmt.Sprintf("skipped: %d\n", len(r.skipped)))
	for _, s := range r.skipped {
		r.print("  " + s + "\n")
	}
}

func (r *report) print(s string) { _, _ = io.WriteString(r.out, s) }
