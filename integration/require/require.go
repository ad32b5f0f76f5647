// Package require says what a test needs of its machine.
//
// A test that lacks something is skipped with a printed reason on a developer's
// machine and fails in CI (environment CI=true): there, a skip would be a story
// that nobody tells any more. The one exception is a kernel feature, which no
// package manager can install.
//
//	require.Root(t)
//	require.Command(t, "postfix")
//	require.Kernel(t, require.FUSE)
package require

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Feature is a kernel feature that a test may need and a machine may lack.
type Feature string

// The features whose absence is excused everywhere.
const (
	// FUSE is a usable /dev/fuse.
	FUSE Feature = "fuse"
	// Mount is the right to mount a tmpfs.
	Mount Feature = "mount"
	// NetworkNamespaces is the right to make network namespaces.
	NetworkNamespaces Feature = "netns"
)

// KernelReason starts the reason of every excused skip.
const KernelReason = "kernel feature missing: "

// CI says whether a skip is a failure here.
func CI() bool { return os.Getenv("CI") == "true" }

// Command needs every named program. Directories that only root has on its PATH
// are searched too; a name with a slash is a file.
func Command(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		if _, err := Find(name); err != nil {
			miss(tb, name+" is not installed")
		}
	}
}

// Root needs user id 0.
func Root(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		miss(tb, "must run as root")
	}
}

// Kernel needs a kernel feature; its absence is a skip in CI too.
func Kernel(tb testing.TB, feature Feature) {
	tb.Helper()
	if err := probe(tb, feature); err != nil {
		tb.Skip(KernelReason + string(feature) + ": " + err.Error())
	}
}

// Find returns the path of a program, looking where only root does as well.
func Find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || strings.Contains(name, "/") {
		return path, err
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

func miss(tb testing.TB, reason string) {
	tb.Helper()
	if CI() {
		tb.Fatal("in CI nothing may be missing: " + reason)
	}
	tb.Skip(reason)
}

func probe(tb testing.TB, feature Feature) error {
	tb.Helper()
	switch feature {
	case FUSE:
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Close(), probeMount(tb))
	case Mount:
		return probeMount(tb)
	case NetworkNamespaces:
		if _, err := os.Stat("/proc/self/ns/net"); err != nil {
			return err
		}
		return exec.CommandContext(tb.Context(), "unshare", "-n", "true").Run()
	}
	return errors.New("not on the list of kernel features")
}

func probeMount(tb testing.TB) error {
	tb.Helper()
	dir := tb.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		return err
	}
	return unix.Unmount(dir, unix.MNT_DETACH)
}
