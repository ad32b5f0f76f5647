package powercut_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"understudy/integration/lab/powercut"
	"understudy/integration/require"
)

// mount mounts a disk for one test.
func mount(t *testing.T, d *powercut.Disk, dir string) *powercut.Mounted {
	t.Helper()
	m, err := powercut.Mount(d, dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCut shows what survives a power cut and what does not.
func TestCut(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Kernel(t, require.FUSE)
	dir, disk := t.TempDir(), powercut.NewDisk()
	m := mount(t, disk, dir)
	path := func(name string) string { return filepath.Join(dir, name) }
	syncDir := func(name string) { sync(t, name) }

	write(t, path("synced"), "old", true)
	write(t, path("replaced"), "old", true)
	write(t, path("appended"), "one", true)
	syncDir(dir)
	write(t, path("unsynced"), "data", false)
	syncDir(dir)
	write(t, path("no-entry"), "data", true)
	write(t, path("replacement"), "new", true)
	if err := os.Rename(path("replacement"), path("replaced")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path("synced")); err != nil {
		t.Fatal(err)
	}
	write(t, path("appended"), "one two", false)

	disk.Cut(rand.New(rand.NewPCG(1, 1)), 0)
	if _, err := os.ReadFile(path("replaced")); err == nil {
		t.Error("the disk answers after the cut")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = mount(t, disk, dir)
	want := map[string]string{"synced": "old", "replaced": "old", "appended": "one", "unsynced": ""}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(path(e.Name()))
		if err != nil {
			t.Error(err)
		}
		if w, ok := want[e.Name()]; !ok || string(text) != w {
			t.Errorf("%s holds %q", e.Name(), text)
		}
		delete(want, e.Name())
	}
	if len(want) > 0 {
		t.Errorf("gone: %v", want)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPreallocated writes into a preallocated file as a segment log does: with
// half of the unsynced pages kept, every synced byte is there.
func TestPreallocated(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Kernel(t, require.FUSE)
	dir, disk := t.TempDir(), powercut.NewDisk()
	m := mount(t, disk, dir)
	f, err := os.Create(filepath.Join(dir, "segment"))
	if err != nil {
		t.Fatal(err)
	}
	// No child may inherit this process's end of the disk.
	out, err := exec.CommandContext(t.Context(), "ls", "-l", "/proc/self/fd").CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("/dev/fuse")) {
		t.Errorf("a child has (%v)\n%s", err, out)
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 16<<20); err != nil {
		t.Fatal(err)
	}
	sync(t, dir)
	block := bytes.Repeat([]byte("0123456789abcdef"), 625) // 10,000 bytes, not a whole page
	for i := range 100 {
		if _, err := f.WriteAt(block, int64(i*len(block))); err != nil {
			t.Fatal(err)
		}
		if i == 59 {
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				t.Fatal(err)
			}
		}
	}
	disk.Cut(rand.New(rand.NewPCG(2, 2)), 0.5)
	_ = f.Close()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = mount(t, disk, dir)
	text, err := os.ReadFile(filepath.Join(dir, "segment"))
	if err != nil {
		t.Fatal(err)
	}
	if len(text) != 16<<20 || !bytes.Equal(text[:60*len(block)], bytes.Repeat(block, 60)) {
		t.Errorf("%d bytes, or synced ones are gone", len(text))
	}
	if rest := bytes.Count(text[60*len(block):], []byte("0123456789abcdef")); rest == 0 || rest >= 40*625 {
		t.Errorf("%d of %d unsynced pieces are there, want some", rest, 40*625)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string, durable bool) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if durable {
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func sync(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
