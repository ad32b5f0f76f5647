package dnsfailover

import (
	"context"
	"encoding/json"
	"fmt"
)

// Methods are the questions of the other site that Serve answers.
func Methods() []string {
	return []string{MethodState, MethodPromise, MethodNudge, MethodOrder, MethodGates, MethodHistory}
}

// Serve answers one question of the other site.
func Serve(ctx context.Context, c *Controller, method string, params json.RawMessage) (any, error) {
	switch method {
	case MethodState:
		return answer(ctx, params, c.HearPeer)
	case MethodPromise:
		return answer(ctx, params, c.HearPromise)
	case MethodNudge:
		return answer(ctx, params, c.HearNudge)
	case MethodOrder:
		return answer(ctx, params, c.HearOrder)
	case MethodGates:
		return answer(ctx, params, c.HearGates)
	case MethodHistory:
		return answer(ctx, params, c.HearHistory)
	}
	return nil, fmt.Errorf("unknown method %q", method)
}

func answer[In, Out any](ctx context.Context, params json.RawMessage, f func(context.Context, In) (Out, error)) (any, error) {
	var in In
	if err := json.Unmarshal(params, &in); err != nil {
		return nil, fmt.Errorf("read question: %w", err)
	}
	return f(ctx, in)
}
