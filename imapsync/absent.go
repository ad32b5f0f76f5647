package imapsync

import (
	"context"
	"errors"
	"fmt"
)

// Why a folder is kept that a listing did not have.
var (
	errNotListed = errors.New("it is there, and was not in the listing")
	errAbsence   = errors.New("it was not in the listing, and the server does not say that it is gone")
)

// confirmAbsent asks for the folders by name that the base knows and a side did not
// list: a session's view of the tree may be old. Only ErrNoBox says that one is gone.
// With any other answer nothing is done with the folder and its mail, and the next
// round looks again.
func (r *runner) confirmAbsent(ctx context.Context, s Side, tracks []*track) error {
	listed := make(map[string]bool)
	for _, b := range r.list[s].Boxes {
		listed[b.Name] = true // as another folder now, or a name without a mailbox
	}
	var since []Since
	var asked []*track
	for _, t := range tracks {
		if t.base == nil || t.name[s] != "" || t.status[s] != missing || listed[t.base.Name] {
			continue
		}
		since, asked = append(since, Since{Box: t.base.Name, Cursor: t.base.Cursor[s]}), append(asked, t)
	}
	if len(since) == 0 {
		return nil
	}
	deltas, err := r.stores[s].Changes(ctx, since)
	if err != nil {
		return err
	}
	if len(deltas) != len(since) {
		return fmt.Errorf("ask for absent folders: %d answers to %d questions", len(deltas), len(since))
	}
	for i, t := range asked {
		err := deltas[i].Err
		switch {
		case errors.Is(err, ErrNoBox) && !errors.Is(err, ErrNoName):
			continue
		case err == nil:
			err = errNotListed
		default:
			err = fmt.Errorf("%w: %w", errAbsence, err)
		}
		t.delta[s] = &Delta{Err: err} // as with any folder that cannot be read
		r.mu.Lock()
		r.again = true
		r.mu.Unlock()
	}
	return nil
}
