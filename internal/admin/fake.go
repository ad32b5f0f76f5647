package admin

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"understudy/smtp"
	"understudy/smtp/queue"
)

// Fake is a Queue, Archive and Rules in memory, for tests of what is built on
// them. It passes the same conformance suite as *queue.Spool. The zero value is
// empty and ready.
type Fake struct {
	// OnFlush, where set, is called without a lock for each message that Apply
	// makes due; tests let it play the relay.
	OnFlush func(id string)

	mu       sync.Mutex
	messages map[string]*fakeMessage
	rules    []queue.HoldRule
	watchers map[chan queue.Event]int
}

type fakeMessage struct {
	queue.Detail
	body []byte
}

// Add puts a message into the queue. Empty fields get plausible values.
func (f *Fake) Add(m queue.Summary, body []byte) {
	if m.State == "" {
		m.State = queue.Queued
	}
	if m.Received.IsZero() {
		m.Received = time.Now()
	}
	if m.SizeBytes == 0 {
		m.SizeBytes = int64(len(body))
	}
	env := &smtp.Envelope{ID: m.ID, Received: m.Received, Sender: m.Sender, SizeBytes: m.SizeBytes}
	for i := range m.Recipients {
		if m.Recipients[i].State == "" {
			m.Recipients[i].State = queue.RecipientPending
		}
		env.Recipients = append(env.Recipients, smtp.Recipient{Address: m.Recipients[i].Address})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.messages == nil {
		f.messages = map[string]*fakeMessage{}
	}
	f.messages[m.ID] = &fakeMessage{Detail: queue.Detail{Summary: m, Envelope: env}, body: body}
	f.publish(queue.Event{Kind: queue.EventQueued, ID: m.ID, Sender: m.Sender, SizeBytes: m.SizeBytes})
}

// Answer plays a next hop's answer for all open recipients of a message.
func (f *Fake) Answer(id string, o smtp.Outcome, code int, enhanced, text, relay string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.messages[id]
	if m == nil {
		return
	}
	kind, state, status := queue.EventDeferred, queue.RecipientPending, "deferred"
	switch o {
	case smtp.Delivered:
		kind, state, status = queue.EventDelivered, queue.RecipientDelivered, "sent"
	case smtp.Refused:
		kind, state, status = queue.EventRefused, queue.RecipientRefused, "refused"
	case smtp.Deferred:
	}
	now := time.Now()
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.State != queue.RecipientPending {
			continue
		}
		r.State, r.Code, r.Enhanced, r.Text, r.Relay, r.At = state, code, enhanced, text, relay, now
		m.History = append(m.History, queue.Attempt{
			At: now, Recipient: r.Address, Status: status, Code: code, Enhanced: enhanced, Text: text, Relay: relay,
		})
		f.publish(queue.Event{
			Kind: kind, ID: id, Sender: m.Sender, Recipient: r.Address,
			Code: code, Enhanced: enhanced, Text: text, Relay: relay, Delay: now.Sub(m.Received),
		})
	}
	m.Attempts++
	switch o {
	case smtp.Delivered:
		delete(f.messages, id)
		f.publish(queue.Event{Kind: queue.EventRemoved, ID: id, Sender: m.Sender})
	case smtp.Refused:
		m.State, m.NextAttempt = queue.Refused, time.Time{}
		m.LastError = fmt.Sprintf("%d %s %s", code, enhanced, text)
	case smtp.Deferred:
		m.State, m.NextAttempt = queue.Queued, now.Add(5*time.Minute)
		m.LastError = fmt.Sprintf("%d %s %s", code, enhanced, text)
	}
}

// publish tells the watchers; f.mu is held.
func (f *Fake) publish(ev queue.Event) {
	ev.Time = time.Now()
	for ch, dropped := range f.watchers {
		ev.Dropped = dropped
		select {
		case ch <- ev:
			f.watchers[ch] = 0
		default:
			f.watchers[ch]++
		}
	}
}

// List implements Queue.
func (f *Fake) List(ctx context.Context, sel queue.Selection) ([]queue.Summary, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list(sel), nil
}

// list is List under the lock.
func (f *Fake) list(sel queue.Selection) []queue.Summary {
	var out []queue.Summary
	ids := map[string]bool{}
	for _, id := range sel.IDs {
		ids[id] = true
	}
	for _, m := range f.messages {
		if (len(ids) == 0 || ids[m.ID]) && matches(&m.Summary, sel) {
			s := m.Summary
			s.Recipients = slices.Clone(s.Recipients)
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b queue.Summary) int {
		return cmpOr(a.Received.Compare(b.Received), strings.Compare(a.ID, b.ID))
	})
	if sel.Limit > 0 && len(out) > sel.Limit {
		out = out[:sel.Limit]
	}
	return out
}

func cmpOr(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}

// matches says whether sel means m, its IDs and Limit aside.
func matches(m *queue.Summary, sel queue.Selection) bool {
	age := time.Since(m.Received)
	sender := m.Sender
	if sender == "" {
		sender = "<>"
	}
	rcpt, domain := sel.Recipient == "", sel.Domain == ""
	for _, r := range m.Recipients {
		rcpt = rcpt || glob(sel.Recipient, r.Address)
		domain = domain || glob(sel.Domain, smtp.Domain(r.Address))
	}
	return rcpt && domain &&
		(sel.Sender == "" || glob(sel.Sender, sender)) &&
		(sel.MinAge == 0 || age >= sel.MinAge) && (sel.MaxAge == 0 || age <= sel.MaxAge) &&
		m.SizeBytes >= sel.MinBytes && (sel.MaxBytes == 0 || m.SizeBytes <= sel.MaxBytes) &&
		strings.Contains(strings.ToLower(m.NextHop), strings.ToLower(sel.NextHop)) &&
		strings.Contains(strings.ToLower(m.LastError), strings.ToLower(sel.Error)) &&
		(len(sel.States) == 0 || slices.Contains(sel.States, m.State))
}

func glob(pattern, s string) bool {
	pattern = strings.NewReplacer("[", `\[`, `\`, `\\`).Replace(strings.ToLower(pattern))
	ok, err := path.Match(pattern, strings.ToLower(s))
	return err == nil && ok
}

// Show implements Queue.
func (f *Fake) Show(_ context.Context, id string) (queue.Detail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.messages[id]
	if m == nil {
		return queue.Detail{}, queue.ErrNotFound
	}
	d := m.Detail
	d.Recipients, d.History = slices.Clone(d.Recipients), slices.Clone(d.History)
	return d, nil
}

// Body implements Queue.
func (f *Fake) Body(_ context.Context, id string) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.messages[id]
	if m == nil {
		return nil, queue.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(m.body)), nil
}

// Apply implements Queue.
func (f *Fake) Apply(ctx context.Context, action queue.Action, sel queue.Selection, opt queue.ApplyOptions) (queue.Change, error) {
	change := queue.Change{IDs: []string{}}
	if err := ctx.Err(); err != nil {
		return change, err
	}
	switch action {
	case queue.Hold, queue.Release, queue.Flush, queue.Delete, queue.Requeue, queue.Bounce:
	default:
		return change, fmt.Errorf("unknown action %q", action)
	}
	var due []string
	f.mu.Lock()
	for _, m := range f.list(sel) {
		if why := f.change(f.messages[m.ID], action, opt); why != "" {
			if change.Skipped == nil {
				change.Skipped = map[string]string{}
			}
			change.Skipped[m.ID] = why
			continue
		}
		change.IDs = append(change.IDs, m.ID)
		if action == queue.Flush || action == queue.Release || action == queue.Requeue {
			due = append(due, m.ID)
		}
	}
	for _, id := range sel.IDs {
		if f.messages[id] == nil && !slices.Contains(change.IDs, id) {
			if change.Skipped == nil {
				change.Skipped = map[string]string{}
			}
			change.Skipped[id] = queue.ErrNotFound.Error()
		}
	}
	change.Count = len(change.IDs)
	f.mu.Unlock()
	if f.OnFlush != nil && !opt.DryRun {
		for _, id := range due {
			f.OnFlush(id)
		}
	}
	return change, nil
}

// change does action to m, or says why not; f.mu is held.
func (f *Fake) change(m *fakeMessage, action queue.Action, opt queue.ApplyOptions) string {
	ev := queue.Event{ID: m.ID, Sender: m.Sender, Text: opt.Reason}
	state, reason := m.State, ""
	switch action {
	case queue.Hold:
		ev.Kind, state, reason = queue.EventHeld, queue.Held, opt.Reason
	case queue.Release:
		ev.Kind, state = queue.EventReleased, queue.Queued
	case queue.Requeue:
		ev.Kind, state = queue.EventRequeued, queue.Queued
	case queue.Flush:
		ev.Kind = queue.EventFlushed
		if m.State != queue.Queued {
			return "is " + string(m.State)
		}
	case queue.Delete:
		ev.Kind = queue.EventDeleted
	case queue.Bounce:
		ev.Kind = queue.EventBounced
	default:
		return "unknown action"
	}
	if opt.DryRun {
		return ""
	}
	m.State, m.Reason = state, reason
	if state == queue.Queued {
		m.NextAttempt = time.Now()
	}
	if action == queue.Requeue && opt.To != "" {
		m.NextHop = opt.To
	}
	if action == queue.Delete || action == queue.Bounce {
		delete(f.messages, m.ID)
	}
	f.publish(ev)
	return ""
}

// Stats implements Queue.
func (f *Fake) Stats(context.Context) (queue.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := queue.Stats{
		States:    map[queue.State]queue.StateStats{},
		AgeBounds: []time.Duration{5 * time.Minute, time.Hour, 24 * time.Hour},
	}
	rows := map[string]*queue.DomainStats{}
	st.Total = queue.DomainStats{Domain: "TOTAL", Ages: make([]int, 4)}
	for _, m := range f.list(queue.Selection{}) {
		st.Messages++
		st.Bytes += m.SizeBytes
		s := st.States[m.State]
		st.States[m.State] = queue.StateStats{Messages: s.Messages + 1, Bytes: s.Bytes + m.SizeBytes}
		if st.Oldest.IsZero() {
			st.Oldest = m.Received
		}
		col, _ := slices.BinarySearch(st.AgeBounds, time.Since(m.Received))
		for _, r := range m.Recipients {
			d := smtp.Domain(r.Address)
			if rows[d] == nil {
				rows[d] = &queue.DomainStats{Domain: d, Ages: make([]int, 4)}
			}
			st.Recipients++
			for _, row := range []*queue.DomainStats{rows[d], &st.Total} {
				row.Total++
				row.Ages[col]++
			}
		}
	}
	for _, d := range slices.Sorted(maps.Keys(rows)) {
		st.Domains = append(st.Domains, *rows[d])
	}
	return st, nil
}

// Subscribe implements Queue.
func (f *Fake) Subscribe(ctx context.Context) (<-chan queue.Event, func()) {
	ch := make(chan queue.Event, 1024)
	f.mu.Lock()
	if f.watchers == nil {
		f.watchers = map[chan queue.Event]int{}
	}
	f.watchers[ch] = 0
	f.mu.Unlock()
	once := sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, ch)
		close(ch)
	})
	stop := context.AfterFunc(ctx, once)
	return ch, func() { stop(); once() }
}

// HoldRules implements Rules.
func (f *Fake) HoldRules() []queue.HoldRule {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.rules)
}

// SetHoldRules implements Rules.
func (f *Fake) SetHoldRules(_ context.Context, rules []queue.HoldRule) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = slices.Clone(rules)
	return nil
}

// Export implements Archive; only a Fake's Import reads it.
func (f *Fake) Export(ctx context.Context, w io.Writer, sel queue.Selection) (int, error) {
	list, err := f.List(ctx, sel)
	if err != nil {
		return 0, err
	}
	return len(list), exportFake(f, w, list)
}

// Import implements Archive.
func (f *Fake) Import(_ context.Context, r io.Reader) (queue.Change, error) {
	change := queue.Change{IDs: []string{}}
	archive := fakeReader{tar.NewReader(r)}
	for {
		m, body, err := archive.next()
		if errors.Is(err, io.EOF) {
			return change, nil
		}
		if err != nil {
			return change, fmt.Errorf("read import: %w", err)
		}
		f.Add(m, body)
		change.IDs = append(change.IDs, m.ID)
		change.Count++
	}
}

var (
	_ Queue   = (*Fake)(nil)
	_ Archive = (*Fake)(nil)
	_ Rules   = (*Fake)(nil)
	_ Queue   = (*queue.Spool)(nil)
	_ Archive = (*queue.Spool)(nil)
	_ Rules   = (*queue.Spool)(nil)
)
