package sieve

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"understudy/imapsync"
)

// memory is one side; it does not understand scripts with "vacation" in them.
type memory struct {
	scripts map[string]string
	active  string
}

func (m *memory) List(context.Context) ([]string, string, error) {
	return slices.Sorted(maps.Keys(m.scripts)), m.active, nil
}

func (m *memory) Get(_ context.Context, name string) (string, error) { return m.scripts[name], nil }

func (m *memory) Put(_ context.Context, name, text string) error {
	if strings.Contains(text, "vacation") {
		return &RefusalError{Command: "PUTSCRIPT", Text: "unknown extension"}
	}
	m.scripts[name] = text
	return nil
}

func (m *memory) Activate(_ context.Context, name string) error {
	if _, ok := m.scripts[name]; !ok && name != "" {
		return &RefusalError{Command: "SETACTIVE", Text: "no such script"}
	}
	m.active = name
	return nil
}

func (m *memory) Delete(_ context.Context, name string) error {
	if name == m.active {
		return &RefusalError{Command: "DELETESCRIPT", Text: "it is active"}
	}
	delete(m.scripts, name)
	return nil
}

func pass(t *testing.T, a, b *memory, file string, opt Options) Report {
	t.Helper()
	r, err := Sync(t.Context(), Pair{a, b}, file, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func side(active string, scripts ...string) *memory {
	m := &memory{scripts: map[string]string{}, active: active}
	for i := 0; i+1 < len(scripts); i += 2 {
		m.scripts[scripts[i]] = scripts[i+1]
	}
	return m
}

func TestScriptsConverge(t *testing.T) {
	for name, tc := range map[string]struct {
		base, a, b *memory // base nil: first pass
		want       *memory // at both sides
		conflicts  int
	}{
		"first pass":                 {nil, side("x", "x", "1"), side("", "y", "2"), side("x", "x", "1", "y", "2"), 0},
		"changed here":               {side("x", "x", "1"), side("x", "x", "2"), side("x", "x", "1"), side("x", "x", "2"), 0},
		"changed there":              {side("x", "x", "1"), side("x", "x", "1"), side("x", "x", "2"), side("x", "x", "2"), 0},
		"another is active there":    {side("x", "x", "1", "y", "1"), side("x", "x", "1", "y", "1"), side("y", "x", "1", "y", "1"), side("y", "x", "1", "y", "1"), 0},
		"none is active any more":    {side("x", "x", "1"), side("", "x", "1"), side("x", "x", "1"), side("", "x", "1"), 0},
		"deleted here":               {side("x", "x", "1", "y", "1"), side("x", "x", "1"), side("x", "x", "1", "y", "1"), side("x", "x", "1"), 0},
		"deleted here, changed":      {side("x", "x", "1", "y", "1"), side("x", "x", "1"), side("x", "x", "1", "y", "2"), side("x", "x", "1", "y", "2"), 0},
		"deleted where it is active": {side("", "y", "1"), side(""), side("y", "y", "1"), side("y", "y", "1"), 0},
		"replaced and deleted":       {side("x", "x", "1"), side("z", "z", "3"), side("x", "x", "1"), side("z", "z", "3", "x", "1"), 0},
		"both changed":               {side("x", "x", "1"), side("x", "x", "2"), side("x", "x", "3"), side("x", "x", "2", "x.conflict-4e074085", "3"), 1},
		"no base, different":         {nil, side("x", "x", "2"), side("x", "x", "3"), side("x", "x", "2", "x.conflict-4e074085", "3"), 1},
		"both the same":              {side("x", "x", "1"), side("x", "x", "2"), side("x", "x", "2"), side("x", "x", "2"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "base")
			if tc.base != nil {
				pass(t, tc.base, &memory{maps.Clone(tc.base.scripts), tc.base.active}, file, Options{})
			}
			before := []*memory{{maps.Clone(tc.a.scripts), tc.a.active}, {maps.Clone(tc.b.scripts), tc.b.active}}
			dry := pass(t, tc.a, tc.b, file, Options{DryRun: true})
			if !cmp.Equal(before, []*memory{tc.a, tc.b}, cmp.AllowUnexported(memory{})) {
				t.Error("a dry run changed something")
			}
			r := pass(t, tc.a, tc.b, file, Options{})
			if !slices.Equal(dry.Changes, r.Changes) {
				t.Errorf("dry run %q, real %q", dry.Changes, r.Changes)
			}
			for s, got := range []*memory{tc.a, tc.b} {
				if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(memory{})); diff != "" {
					t.Errorf("side %d (-want +got):\n%s", s, diff)
				}
			}
			if len(r.Conflicts) != tc.conflicts {
				t.Errorf("conflicts %q", r.Conflicts)
			}
			if again := pass(t, tc.a, tc.b, file, Options{}); len(again.Changes) > 0 {
				t.Errorf("a second pass changes %q", again.Changes)
			}
		})
	}
}

func TestRefusedScriptStaysWhereItIs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "base")
	a, b := side("x", "x", "require vacation"), side("")
	for range 2 {
		r := pass(t, a, b, file, Options{})
		if len(r.Refused) == 0 || a.scripts["x"] == "" || a.active != "x" || len(b.scripts) != 0 {
			t.Errorf("%+v; a %+v, b %+v", r, a, b)
		}
	}
}

func TestDamagedBaseDeletesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "base")
	a, b := side("", "x", "1"), side("", "x", "1")
	pass(t, a, b, file, Options{})
	if err := os.WriteFile(file, []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	delete(a.scripts, "x")
	pass(t, a, b, file, Options{})
	if a.scripts["x"] != "1" || b.scripts["x"] != "1" {
		t.Errorf("a %+v, b %+v", a, b)
	}
}

// Whatever happens on both sides, with passes in between: both become equal, no
// text is lost, and a second pass changes nothing.
func TestAnyHistoryConverges(t *testing.T) {
	dir, runs := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		file := filepath.Join(dir, strconv.Itoa(runs))
		sides := []*memory{side(""), side("")}
		names := []string{"x", "y", "z"}
		base := map[string]string{}
		sync := func() Report {
			r, err := Sync(t.Context(), Pair{sides[0], sides[1]}, file, Options{Prefer: imapsync.B})
			if err != nil {
				rt.Fatal(err)
			}
			base = maps.Clone(sides[0].scripts)
			return r
		}
		for i := range rapid.IntRange(1, 12).Draw(rt, "steps") {
			s := sides[rapid.IntRange(0, 1).Draw(rt, "side")]
			name := rapid.SampledFrom(names).Draw(rt, "name")
			switch rapid.IntRange(0, 4).Draw(rt, "op") {
			case 0, 1:
				s.scripts[name] = string(rune('a' + i))
			case 2:
				_ = s.Delete(t.Context(), name) // refused where it is active
			case 3:
				_ = s.Activate(t.Context(), name)
			case 4:
				sync()
			}
		}
		// What was written since the last pass lives on under some name.
		var written []string
		for _, m := range sides {
			for name, text := range m.scripts {
				if base[name] != text {
					written = append(written, text)
				}
			}
		}
		sync()
		if !maps.Equal(sides[0].scripts, sides[1].scripts) || sides[0].active != sides[1].active {
			rt.Fatalf("a %+v, b %+v", sides[0], sides[1])
		}
		have := slices.Collect(maps.Values(sides[0].scripts))
		for _, text := range written {
			if !slices.Contains(have, text) {
				rt.Fatalf("text %s is lost; a %+v, b %+v", text, sides[0], sides[1])
			}
		}
		if r := sync(); len(r.Changes) > 0 {
			rt.Fatalf("a second pass changes %q", r.Changes)
		}
	})
}
