package smtp

import (
	"context"
	"fmt"
	"io"
	"slices"
)

// Chain is several filters as one. All are asked in order, each with the body
// from its beginning, until one rejects; the sternest verdict wins, an earlier
// one before a later one of the same action. Headers, edits and symbols of all are
// kept, and one that marks the message as spam is enough.
// An error of any of them is the chain's.
type Chain []Filter

var _ Filter = Chain(nil)

// Check implements Filter. An empty chain accepts.
func (c Chain) Check(ctx context.Context, env *Envelope, body io.ReadSeeker) (Verdict, error) {
	var sum Verdict
	for i, f := range c {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return Verdict{}, fmt.Errorf("rewind message: %w", err)
		}
		v, err := f.Check(ctx, env, body)
		if err != nil {
			return Verdict{}, err
		}
		if i == 0 {
			sum = v
			if v.Action == Reject {
				return sum, nil
			}
			continue
		}
		header, symbols := sum.Header+v.Header, append(slices.Clip(sum.Symbols), v.Symbols...)
		edits, spam := append(slices.Clip(sum.Edits), v.Edits...), sum.Spam || v.Spam
		if v.Action > sum.Action || v.Action == sum.Action && sum.Engine == "" {
			sum = v
		}
		sum.Header, sum.Symbols, sum.Edits, sum.Spam = header, symbols, edits, spam
		if v.Action == Reject {
			break
		}
	}
	return sum, nil
}
