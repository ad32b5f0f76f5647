package admin

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/smtp/queue"
)

// flushTracker follows a set of messages from the moment of a flush until each
// has an outcome. It is pure: events and listings in, finished messages out.
type flushTracker struct {
	// retry keeps deferred messages open.
	retry    bool
	open     map[string]*flushItem
	outcomes map[Outcome]int
	total    int
	bytes    int64
}

// flushItem is one message that has no final outcome yet.
type flushItem struct {
	id, sender string
	size       int64
	// waiting counts, by address in lower case, the recipients that have not been
	// answered since the flush.
	waiting map[string]int
	answers []FlushRecipient
	// missing says that the last look did not find it in the queue.
	missing bool
	// deferred says that it was put off and is to be flushed again.
	deferred bool
	// recipients are those that were open, to begin the next attempt with.
	recipients []string
}

func newFlushTracker(retry bool) *flushTracker {
	return &flushTracker{retry: retry, open: map[string]*flushItem{}, outcomes: map[Outcome]int{}}
}

// add begins to follow m.
func (t *flushTracker) add(m queue.Summary) {
	it := &flushItem{id: m.ID, sender: m.Sender, size: m.SizeBytes}
	for _, r := range m.Recipients {
		if r.State == queue.RecipientPending {
			it.recipients = append(it.recipients, strings.ToLower(r.Address))
		}
	}
	it.begin()
	t.open[m.ID] = it
	t.total++
	t.bytes += m.SizeBytes
}

// begin waits for an answer for every open recipient.
func (it *flushItem) begin() {
	it.waiting = make(map[string]int, len(it.recipients))
	for _, a := range it.recipients {
		it.waiting[a]++
	}
	it.answers = it.answers[:0]
	it.deferred = false
}

// skip counts a message that could not be flushed.
func (t *flushTracker) skip(id, why string) FlushMessage {
	t.total++
	t.outcomes[OutcomeSkipped]++
	return FlushMessage{ID: id, Outcome: OutcomeSkipped, Final: true, Text: why}
}

// done is how many have their final outcome.
func (t *flushTracker) done() int { return t.total - len(t.open) }

// event takes in one event and returns what it decided, if anything.
func (t *flushTracker) event(ev queue.Event) (FlushMessage, bool) {
	it, ok := t.open[ev.ID]
	if !ok {
		return FlushMessage{}, false
	}
	switch ev.Kind {
	case queue.EventDelivered:
		return t.answer(it, OutcomeDelivered, ev)
	case queue.EventDeferred:
		return t.answer(it, OutcomeDeferred, ev)
	case queue.EventRefused:
		return t.answer(it, OutcomeRefused, ev)
	case queue.EventRemoved:
		return t.finish(it, OutcomeDelivered, ""), true
	case queue.EventHeld:
		return t.finish(it, OutcomeHeld, ev.Text), true
	case queue.EventDeleted:
		return t.finish(it, OutcomeDeleted, ev.Text), true
	case queue.EventBounced:
		return t.finish(it, OutcomeDeleted, "bounced"), true
	case queue.EventQueued, queue.EventReleased, queue.EventFlushed, queue.EventRequeued:
	}
	return FlushMessage{}, false
}

// answer takes in the next hop's answer for one recipient.
func (t *flushTracker) answer(it *flushItem, o Outcome, ev queue.Event) (FlushMessage, bool) {
	key := strings.ToLower(ev.Recipient)
	if it.waiting[key] == 0 {
		return FlushMessage{}, false // of an attempt that had begun before
	}
	if it.waiting[key]--; it.waiting[key] == 0 {
		delete(it.waiting, key)
	}
	if o != OutcomeDeferred {
		if i := slices.Index(it.recipients, key); i >= 0 {
			it.recipients = slices.Delete(it.recipients, i, i+1)
		}
	}
	it.answers = append(it.answers, FlushRecipient{
		Address: ev.Recipient, Outcome: o, Code: ev.Code, Enhanced: ev.Enhanced, Text: ev.Text, Relay: ev.Relay,
	})
	if len(it.waiting) > 0 {
		return FlushMessage{}, false
	}
	return t.settle(it), true
}

// settle closes an attempt in which every recipient was answered.
func (t *flushTracker) settle(it *flushItem) FlushMessage {
	worst := OutcomeDelivered
	for _, a := range it.answers {
		if a.Outcome == OutcomeDeferred || a.Outcome == OutcomeRefused && worst == OutcomeDelivered {
			worst = a.Outcome
		}
	}
	if worst == OutcomeDeferred && t.retry {
		m := it.message(OutcomeDeferred, "")
		m.Recipients = slices.Clone(m.Recipients)
		it.begin()
		it.deferred = true
		return m
	}
	return t.finish(it, worst, "")
}

// finish gives a message its final outcome.
func (t *flushTracker) finish(it *flushItem, o Outcome, text string) FlushMessage {
	delete(t.open, it.id)
	t.outcomes[o]++
	m := it.message(o, text)
	m.Final = true
	return m
}

func (it *flushItem) message(o Outcome, text string) FlushMessage {
	return FlushMessage{ID: it.id, Sender: it.sender, SizeBytes: it.size, Outcome: o, Text: text, Recipients: it.answers}
}

// resync compares what is followed with a listing of exactly those messages: for
// what the events did not tell (a slow reader loses some). since is when the
// flush began, removed knows what operators have deleted or bounced.
func (t *flushTracker) resync(list []queue.Summary, since time.Time, removed func(id string) bool) []FlushMessage {
	have := make(map[string]*queue.Summary, len(list))
	for i := range list {
		have[list[i].ID] = &list[i]
	}
	var out []FlushMessage
	for id, it := range t.open {
		m, ok := have[id]
		switch {
		case !ok && len(it.waiting) == 0 && len(it.answers) > 0:
			out = append(out, t.settle(it))
		case !ok && !it.missing:
			it.missing = true // the event that says how may still be on its way
		case !ok && removed(id):
			out = append(out, t.finish(it, OutcomeDeleted, ""))
		case !ok:
			// A message leaves the queue delivered, or by an operator's hand.
			out = append(out, t.finish(it, OutcomeDelivered, "the next hop's answer was not seen"))
		case m.State == queue.Held:
			out = append(out, t.finish(it, OutcomeHeld, m.Reason))
		case m.State == queue.Refused:
			it.answers = answersSince(m, since)
			out = append(out, t.finish(it, OutcomeRefused, ""))
		case m.State == queue.Queued && !it.deferred && t.attempted(it, m, since):
			it.answers = answersSince(m, since)
			out = append(out, t.settle(it))
		}
	}
	slices.SortFunc(out, func(a, b FlushMessage) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// attempted says whether every recipient that was waited for has been answered
// since the flush began.
func (t *flushTracker) attempted(it *flushItem, m *queue.Summary, since time.Time) bool {
	if len(it.waiting) == 0 {
		return false
	}
	for _, r := range m.Recipients {
		if it.waiting[strings.ToLower(r.Address)] > 0 && !r.At.After(since) {
			return false
		}
	}
	return true
}

// answersSince rebuilds the answers from a listing.
func answersSince(m *queue.Summary, since time.Time) []FlushRecipient {
	var out []FlushRecipient
	for _, r := range m.Recipients {
		if !r.At.After(since) {
			continue
		}
		o := OutcomeDeferred
		switch r.State {
		case queue.RecipientDelivered:
			o = OutcomeDelivered
		case queue.RecipientRefused:
			o = OutcomeRefused
		case queue.RecipientPending:
		}
		out = append(out, FlushRecipient{
			Address: r.Address, Outcome: o, Code: r.Code, Enhanced: r.Enhanced, Text: r.Text, Relay: r.Relay,
		})
	}
	return out
}

// giveUp ends every message that keep does not hold back with outcome o.
func (t *flushTracker) giveUp(o Outcome, keep func(id string) bool, text func(id string) string) []FlushMessage {
	var out []FlushMessage
	for id, it := range t.open {
		if keep == nil || !keep(id) {
			out = append(out, t.finish(it, o, text(id)))
		}
	}
	slices.SortFunc(out, func(a, b FlushMessage) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// takeDeferred returns the ids that are to be flushed again.
func (t *flushTracker) takeDeferred() []string {
	var ids []string
	for id, it := range t.open {
		if it.deferred {
			it.deferred = false
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// ids lists what is still followed.
func (t *flushTracker) ids() []string {
	ids := make([]string, 0, len(t.open))
	for id := range t.open {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// String is the answer in the usual words: "250 2.0.0 ok".
func (r FlushRecipient) String() string {
	var parts []string
	if r.Code != 0 {
		parts = append(parts, strconv.Itoa(r.Code))
	}
	for _, s := range []string{r.Enhanced, r.Text} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, " ")
}
