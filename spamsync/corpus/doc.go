// Package corpus generates mail for tests and measurements: nothing in it was
// ever sent by anybody. Messages differ in vocabulary by class, and in MIME shape,
// charset, size, header order and sender habits whatever the class.
//
// Invariants:
//
//   - The same seed gives the same bytes, in every version of Go that keeps
//     math/rand/v2's PCG.
//   - Names are under .example, addresses from the documentation networks.
//
// For example:
//
//	all := corpus.Generate(1, 400)
//	train, judge := all[:200], all[200:]
package corpus
