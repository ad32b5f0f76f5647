package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
)

// host is a testing.TB outside of go test: the servers of integration/servers want one.
// Fatalf panics with failure; end turns that back into an error after the cleanups.
type host struct {
	testing.TB                 // only for its unexported method; nil
	ctx        context.Context //nolint:containedctx // handed out by Context
	cancel     context.CancelFunc
	cleanups   []func()
	failed     bool
}

type failure string

func newHost(ctx context.Context) *host {
	ctx, cancel := context.WithCancel(ctx)
	return &host{ctx: ctx, cancel: cancel}
}

func (h *host) Helper()                  {}
func (h *host) Name() string             { return "bench-imap" }
func (h *host) Context() context.Context { return h.ctx }
func (h *host) Failed() bool             { return h.failed }
func (h *host) Cleanup(f func())         { h.cleanups = append(h.cleanups, f) }
func (h *host) Log(args ...any)          { fmt.Fprintln(os.Stderr, args...) }
func (h *host) Skip(args ...any)         { h.Fatal(args...) }
func (h *host) Fatal(args ...any)        { h.Fatalf("%s", fmt.Sprint(args...)) }

func (h *host) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (h *host) Fatalf(format string, args ...any) {
	h.failed = true
	panic(failure(fmt.Sprintf(format, args...)))
}

// end runs the cleanups, last first.
func (h *host) end(recovered any) error {
	h.cancel()
	for _, cleanup := range slices.Backward(h.cleanups) {
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
