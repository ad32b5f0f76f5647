package durable

import "syscall"

func syncData(fd int) error { return syscall.Fdatasync(fd) }

func allocate(fd int, size int64) error { return syscall.Fallocate(fd, 0, 0, size) }
