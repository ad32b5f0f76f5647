package queuetest

import "testing"

func TestFake(t *testing.T) {
	t.Parallel()
	Run(t, func(*testing.T) Subject {
		q := New()
		return Subject{Queue: q, Stored: q.Stored, SetFull: q.SetFull}
	})
}
