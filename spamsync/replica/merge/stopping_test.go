package merge_test

import (
	"context"
	"errors"

	"understudy/spamsync/replica/stream"
)

// stopping is a source whose second reading breaks after some commands.
type stopping struct {
	stream.Source
	after  int
	opened *int
}

var errStopped = errors.New("the line broke")

func (s stopping) Open(ctx context.Context, from, to stream.Point) (stream.Iterator, error) {
	it, err := s.Source.Open(ctx, from, to)
	*s.opened++
	if err != nil || *s.opened == 1 {
		return it, err
	}
	return &stoppingIterator{it, s.after}, nil
}

type stoppingIterator struct {
	stream.Iterator
	left int
}

func (s *stoppingIterator) Next(ctx context.Context) (stream.Command, error) {
	if s.left--; s.left < 0 {
		return stream.Command{}, errStopped
	}
	return s.Iterator.Next(ctx)
}
