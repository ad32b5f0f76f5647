package main

import (
	"context"
	"fmt"
	"os"
	"slices"
)

// host is a lab.Host outside of go test. Fatalf panics with failure; end turns
// that back into an error after the cleanups.
type host struct {
	ctx      context.Context //nolint:containedctx // lab.Host hands it out
	cancel   context.CancelFunc
	cleanups []func()
	failed   bool
}

// failure is what Fatalf panics with.
type failure string

func newHost(ctx context.Context) *host {
	ctx, cancel := context.WithCancel(ctx)
	return &host{ctx: ctx, cancel: cancel}
}

func (h *host) Helper() {}

func (h *host) Fatalf(format string, args ...any) {
	h.failed = true
	panic(failure(fmt.Sprintf(format, args...)))
}

func (h *host) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (h *host) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

func (h *host) Context() context.Context { return h.ctx }

func (h *host) Failed() bool { return h.failed }

// end runs the cleanups, last first. recovered is what recover returned: a
// failure comes back as an error, any other panic goes on.
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
