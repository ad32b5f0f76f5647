package main

import (
	"testing"

	"understudy/imapsync"
)

// A word about all does not turn around what was decided before.
func TestWaitingHolds(t *testing.T) {
	t.Parallel()
	holds := []imapsync.Hold{{ID: "1", State: "rejected"}, {ID: "2", State: "waiting"}}
	if got, err := waitingHolds(holds, nil); err != nil || len(got) != 1 || got[0].ID != "2" {
		t.Errorf("all: %v, %v", got, err)
	}
	if got, err := waitingHolds(holds, []string{"1"}); err != nil || len(got) != 1 || got[0].ID != "1" {
		t.Errorf("by id: %v, %v", got, err)
	}
	if _, err := waitingHolds(holds[:1], nil); err == nil {
		t.Error("nothing waits, and that is no error")
	}
}
