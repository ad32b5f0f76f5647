//go:build !linux

package durable

import (
	"errors"
	"syscall"
)

func syncData(fd int) error { return syscall.Fsync(fd) }

func allocate(int, int64) error { return errors.ErrUnsupported }
