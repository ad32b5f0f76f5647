package lab

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
)

// Program stands in for a test outside of go test: it is a Host, and the testing.TB
// that servers want. Fatalf panics; End turns that back into an error after the
// cleanups.
//
//	h := lab.NewProgram(ctx, "bench-mx")
//	defer func() { err = h.End(recover()) }()
type Program struct {
	testing.TB // only for its unexported method; nil

	name     string
	ctx      context.Context //nolint:containedctx // handed out by Context
	cancel   context.CancelFunc
	cleanups []func()
	failed   bool
}

var (
	_ Host       = (*Program)(nil)
	_ testing.TB = (*Program)(nil)
)

// failure is what Fatalf panics with.
type failure string

// NewProgram returns a Program whose Context ends with ctx, or at End.
func NewProgram(ctx context.Context, name string) *Program {
	ctx, cancel := context.WithCancel(ctx)
	return &Program{name: name, ctx: ctx, cancel: cancel}
}

// Helper does nothing.
func (p *Program) Helper() {}

// Name is the program's name.
func (p *Program) Name() string { return p.name }

// Context ends before the cleanups begin.
func (p *Program) Context() context.Context { return p.ctx }

// Failed says that Fatalf was called.
func (p *Program) Failed() bool { return p.failed }

// Cleanup has f run by End, the last one first.
func (p *Program) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

// Log writes to standard error.
func (p *Program) Log(args ...any) { fmt.Fprintln(os.Stderr, args...) }

// Logf writes to standard error.
func (p *Program) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Skip fails: a program has nothing to skip to.
func (p *Program) Skip(args ...any) { p.Fatal(args...) }

// Fatal is Fatalf.
func (p *Program) Fatal(args ...any) { p.Fatalf("%s", fmt.Sprint(args...)) }

// Fatalf ends what goes on until End.
func (p *Program) Fatalf(format string, args ...any) {
	p.failed = true
	panic(failure(fmt.Sprintf(format, args...)))
}

// End runs the cleanups, the last one first. recovered is what recover returned: a
// failure comes back as an error, any other panic goes on.
func (p *Program) End(recovered any) error {
	p.cancel()
	for _, cleanup := range slices.Backward(p.cleanups) {
		cleanup()
	}
	switch r := recovered.(type) {
	case nil:
		return nil
	case failure:
		return fmt.Errorf("%s", string(r))
	default:
		panic(r)
	}
}
