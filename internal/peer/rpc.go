package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// defaultCallLimit is for a call whose ctx has no deadline.
const defaultCallLimit = 10 * time.Second

// longestAnswer bounds a handler, whatever the other site says it would wait.
const longestAnswer = 5 * time.Minute

// Handler answers one question of the other site. Its ctx ends when the other
// site has stopped waiting, or the connection has ended. It may be called
// concurrently, and for a question whose earlier answer was lost. Its error's text
// is shown at the other site.
type Handler func(ctx context.Context, params json.RawMessage) (any, error)

// Handle registers the answer to a method, as "failover.promise".
func (l *Link) Handle(method string, h Handler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.methods[method] = h
}

// HandleJSON registers a method whose question and answer have types.
func HandleJSON[In, Out any](l *Link, method string, h func(ctx context.Context, in In) (Out, error)) {
	l.Handle(method, func(ctx context.Context, params json.RawMessage) (any, error) {
		var in In
		if len(params) > 0 {
			if err := json.Unmarshal(params, &in); err != nil {
				return nil, fmt.Errorf("read the question: %w", err)
			}
		}
		return h(ctx, in)
	})
}

// Call asks the other site and decodes its answer into out, which may be nil. Its
// error is ErrDown, ErrUnknownMethod or ErrBusy when nothing was done there, a
// *RemoteError when the handler refused, and ErrLost when nobody knows. It is
// never repeated by Link.
func (l *Link) Call(ctx context.Context, method string, in, out any) error {
	params, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", method, err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeLeft(ctx))
	defer cancel()
	began := time.Now()
	reply, err := l.ask(ctx, &message{Kind: kindCall, Method: method, LimitMS: time.Until(deadline(ctx)).Milliseconds(), Body: params})
	l.metrics.called(method, time.Since(began), err)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	switch reply.Code {
	case "":
	case codeUnknown:
		return fmt.Errorf("%w: %s", ErrUnknownMethod, method)
	case codeBusy:
		return fmt.Errorf("%w: %s", ErrBusy, method)
	default:
		return &RemoteError{Method: method, Text: reply.Text}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(reply.Body, out); err != nil {
		return fmt.Errorf("decode the answer to %s: %w", method, err)
	}
	return nil
}

func timeLeft(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return time.Until(d)
	}
	return defaultCallLimit
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

// ask sends a call on the connection that was heard last.
func (l *Link) ask(ctx context.Context, m *message) (*message, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", ErrDown, context.Cause(ctx))
	}
	for {
		l.mu.Lock()
		var ctl *control
		if n := len(l.controls); n > 0 {
			ctl = l.controls[n-1]
		}
		l.mu.Unlock()
		if ctl == nil {
			return nil, ErrDown
		}
		ch := make(chan *message, 1)
		ctl.mu.Lock()
		if ctl.ended {
			ctl.mu.Unlock()
			l.removeControl(ctl)
			continue
		}
		ctl.next++
		m.ID = ctl.next
		ctl.waiting[m.ID] = ch
		ctl.mu.Unlock()
		if err := ctl.write(m); errors.Is(err, ErrTooBig) {
			ctl.unwait(m.ID)
			return nil, err
		} else if err != nil {
			// Part of it may have arrived, but not all: a frame is whole or nothing.
			// All of it may be on its way in the kernel's buffer, though.
			ctl.unwait(m.ID)
			return nil, fmt.Errorf("%w: %w", ErrLost, err)
		}
		select {
		case reply, ok := <-ch:
			if !ok {
				return nil, ErrLost
			}
			return reply, nil
		case <-ctx.Done():
			ctl.unwait(m.ID)
			return nil, fmt.Errorf("%w: %w", ErrLost, ctx.Err())
		}
	}
}

func (ctl *control) unwait(id uint64) {
	ctl.mu.Lock()
	defer ctl.mu.Unlock()
	delete(ctl.waiting, id)
}

// answer runs the handler of a call.
func (ctl *control) answer(ctx context.Context, m *message) {
	limit := time.Duration(min(max(m.LimitMS, 0), longestAnswer.Milliseconds())) * time.Millisecond
	if limit == 0 {
		limit = defaultCallLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	reply := &message{Kind: kindReply, ID: m.ID}
	ctl.link.mu.Lock()
	h := ctl.link.methods[m.Method]
	ctl.link.mu.Unlock()
	if h == nil {
		reply.Code = codeUnknown
		_ = ctl.write(reply)
		return
	}
	out, err := call(ctx, h, m.Body)
	if err == nil {
		reply.Body, err = json.Marshal(out)
	}
	if err != nil {
		reply.Code, reply.Text = codeError, err.Error()
	}
	if err := ctl.write(reply); errors.Is(err, ErrTooBig) {
		_ = ctl.write(&message{Kind: kindReply, ID: m.ID, Code: codeError, Text: err.Error()})
	}
}

// call turns a handler's panic into an error: the other site must not be able to
// stop this one with a question.
func call(ctx context.Context, h Handler, params json.RawMessage) (out any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return h(ctx, params)
}
