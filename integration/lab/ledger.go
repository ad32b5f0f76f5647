package lab

import (
	"fmt"
	"sort"
	"sync"
)

// Ledger is a sender's book: which messages were answered 250, and what was in
// them. Its methods may be called concurrently.
type Ledger struct {
	mu    sync.Mutex
	acked map[int]Sum
	// maybe holds messages that were given away whole without an answer.
	maybe map[int]Sum
}

// NewLedger makes an empty book.
func NewLedger() *Ledger {
	return &Ledger{acked: map[int]Sum{}, maybe: map[int]Sum{}}
}

// Record writes down what Client.Send or SendChunks said about a message.
func (l *Ledger) Record(m Message, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.acked[m.ID] = m.Sum()
	} else {
		l.maybe[m.ID] = m.Sum()
	}
}

// Acked is the number of messages answered 250.
func (l *Ledger) Acked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// Audit is the outcome of comparing what was promised with what arrived.
type Audit struct {
	// Lost were answered 250 and did not arrive; Altered arrived with another
	// body; Strange were never sent.
	Lost, Altered, Strange []int
	// Twice arrived more than once: allowed after a crash, never without one.
	Twice []int
	// Unasked arrived although the sender got no 250: allowed where the
	// connection broke before the answer.
	Unasked int
}

// Audit compares the book with the bodies that arrived, by message number.
func (l *Ledger) Audit(arrived map[int][]Sum) Audit {
	l.mu.Lock()
	defer l.mu.Unlock()
	var a Audit
	for id := range l.acked {
		if len(arrived[id]) == 0 {
			a.Lost = append(a.Lost, id)
		}
	}
	for id, sums := range arrived {
		want, acked := l.acked[id]
		if !acked {
			var offered bool
			if want, offered = l.maybe[id]; !offered {
				a.Strange = append(a.Strange, id)
				continue
			}
			a.Unasked++
		}
		for _, got := range sums {
			if got != want {
				a.Altered = append(a.Altered, id)
			}
		}
		if len(sums) > 1 {
			a.Twice = append(a.Twice, id)
		}
	}
	for _, ids := range [][]int{a.Lost, a.Altered, a.Strange, a.Twice} {
		sort.Ints(ids)
	}
	return a
}

// Intact says that nothing was lost, altered or invented.
func (a Audit) Intact() bool {
	return len(a.Lost)+len(a.Altered)+len(a.Strange) == 0
}

func (a Audit) String() string {
	return fmt.Sprintf("lost %v, altered %v, strange %v, twice %d, unasked %d", a.Lost, a.Altered, a.Strange, len(a.Twice), a.Unasked)
}
