// Package powercut is a disk that loses what was not synced.
//
// Disk is the model: every file and directory exists twice, as processes see it
// and as it would be found after a power cut. Only fsync and fdatasync copy a
// file's pages, and only fsync of a directory copies its entries, from the one
// to the other. Cut throws the rest away, or keeps a random part of it, as a
// real disk does that was in the middle of writing back. Mount shows the disk
// to real processes through FUSE; it needs /dev/fuse and root.
//
// Invariants:
//
//   - What was synced survives every cut, whatever else does.
//   - A synced file whose directory was not synced may be gone: POSIX promises
//     no more, whatever ext4 does.
//   - After Cut every operation answers EIO until the disk is mounted again, so
//     that nobody can be told "synced" about what is already lost.
//
// For example:
//
//	disk := powercut.NewDisk()
//	m, err := powercut.Mount(disk, dir)
//	// ... run a daemon on dir ...
//	disk.Cut(rnd, 0.5)
//	// ... kill the daemon ...
//	err = m.Close()
//	m, err = powercut.Mount(disk, dir)
package powercut
