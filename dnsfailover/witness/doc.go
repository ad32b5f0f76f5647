// Package witness is the register as a small service of its own, for DNS hosts
// without UPDATE: one value in one file, on a machine that is in neither site.
// The records then follow through a dnsfailover.Publisher.
//
// Server answers over TLS 1.3 to the keys of the two sites and to nobody else;
// Client is the dnsfailover.Arbiter; Store is the file, for the server and for an
// operator who stands before the machine.
//
// Invariants:
//
//   - A change is on the disk before it is answered. After a failed write the
//     store answers nothing until it is opened again: what the disk holds then is
//     the truth.
//   - A witness that has lost its file says ErrMissing. It never makes a value up:
//     an operator restores the epoch, higher than any the sites remember.
//   - A client sends its request only after the server has accepted its key, so
//     that a refused key is known to have changed nothing.
//
// Example:
//
//	store, err := witness.Open("/var/lib/understudy-witness/register.db")
//	server := witness.NewServer(store, key, sites, witness.Deps{Logger: log})
//	err = server.Run(ctx, listener)
package witness
