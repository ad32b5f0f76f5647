// Package replica keeps this site's Redis a copy of the other site's, and makes
// it stand on its own feet when the other cannot be reached.
//
// The site whose Redis takes writes is home. Filters read from their own Redis
// and write to the Endpoint, which leads to home. The other site's Redis follows
// home through the Gate. Where home is away for a while, this site detaches: its
// Redis is promoted and takes the writes, and the place where both histories part
// is recorded. When home is back, what was written here is merged into it
// (package merge), and this Redis follows again.
//
// Machine decides all that and does nothing; Keeper watches, asks it, and acts.
//
// Invariants:
//
//   - No data set is thrown away that is not wholly contained in the one that
//     replaces it: a full copy passes the gate only where nothing was written here,
//     or all of it was merged.
//   - What is not recognised (another's data, a Redis that was emptied, an older
//     backup) is named, and left as it is.
//   - The endpoint leads to a server that takes writes, or nowhere.
//   - State that merges needs no fencing: no decision about the active site is
//     waited for.
//
// For example:
//
//	k, err := replica.New(cfg, replica.Deps{Site: "b", HomeHere: false, Dir: dir, Alarms: alarms, Logger: logger})
//	err = k.Listen(ctx)
//	err = k.Run(ctx)
package replica
