package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"understudy/integration/lab"
)

func TestRatio(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		theirs, ours float64
		unit         unit
		beyond       bool
		want         string
	}{
		{1000, 8000, perSecond, false, "8.0x"},
		{90, 30, mebibytes, false, "3.0x"},
		{60, 0.5, seconds, true, "> 120.0x"},
		{0, 5, perSecond, false, "-"},
	} {
		if got := ratio(c.theirs, c.ours, c.unit, c.beyond); got != c.want {
			t.Errorf("ratio(%v, %v, %s) = %s, want %s", c.theirs, c.ours, c.unit, got, c.want)
		}
	}
	if got := median([]float64{9, 1, 5}); got != 5 {
		t.Errorf("median is %v", got)
	}
}

// TestTree finds children, and their memory.
func TestTree(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids := tree(os.Getpid())
	if !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("%v lacks the child %d", pids, cmd.Process.Pid)
	}
	if m := pss(pids); m <= 0 {
		t.Errorf("memory is %v MiB", m)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
}

// TestGroupLog: appends of many writers all return.
func TestGroupLog(t *testing.T) {
	t.Parallel()
	log, err := newGroupLog(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	for range 20 {
		done.Go(func() {
			for range 20 {
				if err := log.append(make([]byte, 100)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	if log.offset != 20*20*100 {
		t.Errorf("%d bytes were written, want 40000", log.offset)
	}
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
}

// TestHostEnds turns Fatalf into an error and runs the cleanups, last first.
func TestHostEnds(t *testing.T) {
	t.Parallel()
	h := lab.NewProgram(t.Context(), "bench-mx")
	var order []int
	h.Cleanup(func() { order = append(order, 1) })
	h.Cleanup(func() { order = append(order, 2) })
	err := func() (err error) {
		defer func() { err = h.End(recover()) }()
		h.Fatalf("no %s", "luck")
		return nil
	}()
	if err == nil || err.Error() != "no luck" || !slices.Equal(order, []int{2, 1}) {
		t.Errorf("err %v, cleanups %v", err, order)
	}
}
