package sieve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"golang.org/x/sync/errgroup"

	"understudy/imapsync"
	"understudy/internal/durable"
)

// Scripts is one side of an account.
type Scripts interface {
	// List names the scripts, and the active one or "".
	List(ctx context.Context) (names []string, active string, err error)
	Get(ctx context.Context, name string) (string, error)
	// Put stores a script under name, over one that is there. A *RefusalError: the server
	// does not understand it, nothing was changed.
	Put(ctx context.Context, name, text string) error
	// Activate makes name the active script; "": none is.
	Activate(ctx context.Context, name string) error
	Delete(ctx context.Context, name string) error
}

// Pair is both sides of an account.
type Pair struct{ A, B Scripts }

// Options is one pass.
type Options struct {
	DryRun bool
	// Prefer is the side whose script keeps its name where both changed it.
	Prefer imapsync.Side
}

// Report is what a pass did or, in a dry run, would do.
type Report struct {
	Scripts int      `json:"scripts"`
	Changes []string `json:"changes"`
	// Conflicts are the names under which losing scripts are kept.
	Conflicts []string `json:"conflicts,omitempty"`
	// Refused are scripts that a server does not understand (an extension it lacks).
	Refused []string `json:"refused,omitempty"`
}

// Sync makes both sides equal once. file holds what they had in common after the
// last pass; a missing or damaged one is no base, and then nothing is deleted.
func Sync(ctx context.Context, p Pair, file string, opt Options) (Report, error) {
	base, err := load(file)
	if err != nil {
		return Report{}, err
	}
	stores := [2]Scripts{p.A, p.B}
	var sides [2]Snapshot
	group, gctx := errgroup.WithContext(ctx)
	for s := range sides {
		group.Go(func() error {
			var err error
			if sides[s], err = read(gctx, stores[s]); err != nil {
				return fmt.Errorf("side %s: %w", imapsync.Side(s), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Report{}, err
	}
	steps, conflicts := newPlan(base, sides, opt.Prefer)
	report := Report{Scripts: max(len(sides[0].Scripts), len(sides[1].Scripts)), Changes: []string{}, Conflicts: conflicts}
	for _, st := range steps {
		report.Changes = append(report.Changes, fmt.Sprintf("%s: %s %q", st.Side, st.Op, st.Name))
		if opt.DryRun {
			continue
		}
		err := do(ctx, stores[st.Side], st)
		if refusal, ok := errors.AsType[*RefusalError](err); ok {
			report.Refused = append(report.Refused, fmt.Sprintf("%s: %s: %s", st.Side, st.Name, refusal.Text))
			continue
		}
		if err != nil {
			return report, fmt.Errorf("side %s: %s %q: %w", st.Side, st.Op, st.Name, err)
		}
		apply(&sides[st.Side], st)
	}
	if opt.DryRun {
		return report, nil
	}
	return report, save(file, common(base, sides))
}

func read(ctx context.Context, s Scripts) (Snapshot, error) {
	names, active, err := s.List(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	snap := Snapshot{Scripts: make(map[string]string, len(names)), Active: active}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return Snapshot{}, err
		}
		if snap.Scripts[name], err = s.Get(ctx, name); err != nil {
			return Snapshot{}, err
		}
	}
	return snap, nil
}

func do(ctx context.Context, s Scripts, st Step) error {
	switch st.Op {
	case "put":
		return s.Put(ctx, st.Name, st.Text)
	case "activate":
		return s.Activate(ctx, st.Name)
	default:
		return s.Delete(ctx, st.Name)
	}
}

func apply(s *Snapshot, st Step) {
	switch st.Op {
	case "put":
		s.Scripts[st.Name] = st.Text
	case "activate":
		s.Active = st.Name
	default:
		delete(s.Scripts, st.Name)
	}
}

// common is the new base: what both sides have alike. Where they are not alike, the
// old base stays, so that the next pass decides the same.
func common(base *Snapshot, sides [2]Snapshot) Snapshot {
	out := Snapshot{Scripts: map[string]string{}}
	if base != nil {
		maps.Copy(out.Scripts, base.Scripts)
		out.Active = base.Active
	}
	a, b := sides[imapsync.A], sides[imapsync.B]
	for name := range out.Scripts {
		_, left := a.Scripts[name]
		_, right := b.Scripts[name]
		if !left && !right {
			delete(out.Scripts, name)
		}
	}
	for name, text := range a.Scripts {
		if other, ok := b.Scripts[name]; ok && other == text {
			out.Scripts[name] = hash(text)
		}
	}
	if a.Active == b.Active {
		out.Active = a.Active
	}
	return out
}

func load(file string) (*Snapshot, error) {
	text, err := durable.ReadFile(durable.OS(), file, maxScripts*(512+100))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	base := new(Snapshot)
	if json.Unmarshal(text, base) != nil {
		base = nil // no base is safe: nothing is deleted then
	}
	return base, nil
}

func save(file string, base Snapshot) error {
	text, err := json.Marshal(base)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS(), file, 0o600, text)
}
