package peer_test

import (
	"context"
	"io"
	"testing"
	"time"

	"understudy/internal/peer"
	"understudy/internal/peer/peertest"
)

// A hidden site that serves more connections than it may have spares ends all the same.
func TestManyUsedSparesEndWithTheLink(t *testing.T) {
	t.Parallel()
	a, b := peertest.Pair(t, peertest.Options{Hidden: true})
	b.Serve(peer.IMAP, func(ctx context.Context, c *peer.Conn) {
		defer func() { _ = c.Close() }()
		_, _ = c.Write([]byte("x"))
		<-ctx.Done()
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	peertest.Run(t, a)
	for range 100 {
		var c *peer.Conn
		peertest.WaitFor(t, "a connection", func() bool {
			var err error
			c, err = a.Dial(t.Context(), peer.IMAP)
			return err == nil
		})
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-limit.C:
		t.Fatal("the link of the hidden site does not end")
	}
}
