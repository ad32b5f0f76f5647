package queue

import (
	"errors"
	"io"
	"strings"
	"testing"

	"understudy/smtp/queue/queuetest"
)

// A filter that edits a message makes a second draft of it, under the same id.
func TestRenew(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, 200 << 10} {
		s := start(t, testConfig(t.TempDir()), Deps{})
		created, err := s.Create(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		first, ok := created.(*draft)
		if !ok {
			t.Fatalf("draft is a %T", created)
		}
		body := strings.Repeat("a", size)
		if _, err := io.WriteString(first, body); err != nil {
			t.Fatal(err)
		}
		second, err := first.Renew(t.Context(), int64(size))
		if err != nil {
			t.Fatal(err)
		}
		if second.ID() != first.ID() {
			t.Errorf("id %s, want %s", second.ID(), first.ID())
		}
		r, err := first.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(second, io.MultiReader(strings.NewReader("X: y\r\n"), r)); err != nil {
			t.Fatal(err)
		}
		first.Discard()
		if _, err := first.Renew(t.Context(), 0); !errors.Is(err, errEnded) {
			t.Errorf("renewed after its end: %v", err)
		}
		if err := second.Commit(t.Context(), queuetest.Envelope(), []byte("A: b\r\n")); err != nil {
			t.Fatal(err)
		}
		if got, want := s.body(second.ID()), "A: b\r\nX: y\r\n"+body; got != want {
			t.Errorf("%d bytes stored, want %d, or they differ", len(got), len(want))
		}
	}
}
