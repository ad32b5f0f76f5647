// Package hosted changes records at DNS hosts that have an API and no RFC 2136:
// Cloudflare, Route 53, deSEC, Hetzner. The register is then a witness.
//
// These APIs, through libdns, know no prerequisites: between the look at a record
// and its change somebody else may change it. So the order is: note the epoch in
// a TXT record, look, change one record, look again; and a change is made only
// where the present value is the one that is to be replaced.
//
// Invariants:
//
//   - A record whose present value is neither the old nor the new one is left
//     alone, and so is everything else: ErrForeign.
//   - Only sets with one value are replaced, where the provider's library cannot
//     replace a set as a whole (all but deSEC): two of them would delete or update
//     another record of the same name. More values are ErrRefused.
//   - nil means that the new values were seen at the API afterwards.
//
// Example:
//
//	p, err := hosted.New(hosted.Config{Provider: "desec", Zone: "example.net", TokenFile: "/etc/understudy/desec.token"})
//	err = p.Apply(ctx, epoch, changes)
package hosted
