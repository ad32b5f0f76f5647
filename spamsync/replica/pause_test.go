package replica

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPauseWithoutAnswer: the answer to CLIENT PAUSE is lost, and writes are let go.
func TestPauseWithoutAnswer(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(*Keeper, context.Context) error{
		"cutover": func(k *Keeper, ctx context.Context) error {
			return k.cutover(ctx, look(ctx, k.peer), time.Second, func(context.Context) error { return nil })
		},
		"hand over": func(k *Keeper, ctx context.Context) error {
			k.localPort = 6380
			return k.handOver(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeRedis(t, "master")
			f.before = func(command string) bool { return !strings.HasPrefix(command, "CLIENT PAUSE") }
			k := newTestKeeper(t, f.addr, f.addr)
			if err := act(k, t.Context()); err == nil {
				t.Error("no error")
			}
			if said := f.commands(); !slices.Contains(said, "CLIENT UNPAUSE") {
				t.Errorf("writes stay held back: %q", said)
			}
		})
	}
}
