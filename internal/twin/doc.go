// Package twin says where two machines that should be alike are not.
//
// Each site hashes what its configuration names: files, the output of commands
// and of hooks. One site asks the other for its marks and compares. Only hashes
// leave the machine, salted by whoever asks, so that two answers tell nothing.
//
// # Invariants
//
//   - What could not be read is unknown: neither equal nor different.
//   - A file that is absent at both sites is equal.
//
// # Use
//
//	own := checker.Marks(ctx, salt)
//	for _, d := range twin.Compare(own, theirs) { fmt.Println(d.Name, d.Text) }
package twin
