// Package simfs is an in-memory durable.FS for tests, whose power can be cut and
// whose disk can fail, at any chosen operation and the same way for the same seed.
//
// It keeps two states: what programs see, and what a disk would hold. Writes reach
// the disk state by File.Sync, names by SyncDir. Restart makes the file system that
// a machine finds after a power cut: everything synced, and of the rest an arbitrary
// part, chosen by the seed: pages whole, in torn sectors or not at all; any of the
// unsynced renames, removals and new names; file lengths old or new.
//
// Operations that change something are counted from 1, so that a test can first
// count those of a run, and then repeat it once for each of them:
//
//	fsys := simfs.New()
//	run(fsys)
//	for n := 1; n <= fsys.Ops(); n++ {
//		cut := simfs.New()
//		cut.CrashAt(n)
//		run(cut) // every call from the n-th on returns ErrCrashed
//		check(cut.Restart(seed))
//	}
package simfs
