package dsn

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"understudy/smtp"
	"understudy/smtp/queue"
)

// refusedSpool holds refused messages; bounceable ones leave when bounced.
type refusedSpool struct {
	mu         sync.Mutex
	messages   []queue.Detail
	bounceable map[string]bool
	asked      []string
	events     chan queue.Event
}

func (s *refusedSpool) add(id, sender string, notify ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := queue.Detail{Summary: queue.Summary{
		ID: id, Sender: sender, State: queue.Refused,
		Recipients: []queue.RecipientStatus{{Address: "x@demo.example", State: queue.RecipientRefused}},
	}}
	d.Envelope = &smtp.Envelope{ID: id, Sender: sender, Recipients: []smtp.Recipient{{Address: "x@demo.example", Notify: notify}}}
	s.messages = append(s.messages, d)
}

func (s *refusedSpool) List(_ context.Context, sel queue.Selection) ([]queue.Summary, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(sel.States, []queue.State{queue.Refused}) {
		panic("only refused messages are its business")
	}
	var out []queue.Summary
	for _, m := range s.messages {
		out = append(out, m.Summary)
	}
	return out, nil
}

func (s *refusedSpool) Show(_ context.Context, id string) (queue.Detail, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		if m.ID == id {
			return m, nil
		}
	}
	return queue.Detail{}, queue.ErrNotFound
}

func (s *refusedSpool) Apply(_ context.Context, a queue.Action, sel queue.Selection, _ queue.ApplyOptions) (queue.Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := sel.IDs[0]
	s.asked = append(s.asked, string(a)+" "+id)
	if !s.bounceable[id] {
		return queue.Change{Skipped: map[string]string{id: ErrUnauthenticated.Error()}}, nil
	}
	s.messages = slices.DeleteFunc(s.messages, func(m queue.Detail) bool { return m.ID == id })
	return queue.Change{IDs: []string{id}, Count: 1}, nil
}

// questions is what has been asked so far.
func (s *refusedSpool) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *refusedSpool) Subscribe(context.Context) (<-chan queue.Event, func()) {
	return s.events, func() {}
}

func TestWatcherBouncesWhatItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &refusedSpool{events: make(chan queue.Event), bounceable: map[string]bool{"good": true, "later": true, "never": true}}
		s.add("good", "a@sender.example")
		s.add("forged", "b@victim.example")
		s.add("null", "")
		s.add("never", "c@sender.example", "NEVER")
		w := &Watcher{Spool: s, Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()

		time.Sleep(2 * time.Second) //nolint:forbidigo // virtual time
		synctest.Wait()
		if want := []string{"bounce good", "bounce forged"}; !slices.Equal(s.questions(), want) {
			t.Errorf("asked %v, want %v", s.questions(), want)
		}
		s.add("later", "a@sender.example")
		s.events <- queue.Event{Kind: queue.EventRefused, ID: "later"}
		time.Sleep(2 * time.Second) //nolint:forbidigo // virtual time
		synctest.Wait()
		if asked := s.questions(); asked[len(asked)-1] != "bounce later" {
			t.Errorf("asked %v", asked)
		}
		time.Sleep(10 * 24 * time.Hour) //nolint:forbidigo // virtual time
		synctest.Wait()
		forged := 0
		for _, a := range s.questions() {
			if a == "bounce forged" {
				forged++
			}
		}
		if forged != 1+len(retries()) {
			t.Errorf("asked %d times about a message that may not be bounced", forged)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
