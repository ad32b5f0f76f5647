package main

import (
	"fmt"
	"os"
	"syscall"
)

// ownLike gives a file to the owner of a directory, where root runs the command
// for a daemon that is not root.
func ownLike(dir, file string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if err := os.Chown(file, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("give the key to the daemon's user: %w", err)
	}
	return nil
}
