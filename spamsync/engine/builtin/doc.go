// Package builtin is a spam filter that needs no server but DNS and the shared
// state: what judges mail where no other engine is, or while it is away.
//
// It looks at who sends (SPF, DKIM, DMARC, ARC, HELO, reverse name, block lists),
// at the message (header, MIME, HTML, attachments by name and first bytes, URLs) and
// at what was learned (Bayes, reputation), gives each finding a name and a score,
// and acts on the sum by the thresholds that rspamd users know.
//
// Invariants:
//
//   - The same message, envelope, DNS answers and state give the same symbols and
//     scores, in the same order, on every machine.
//   - Nothing is unpacked; memory and time are bounded whatever comes.
//   - All DNS questions of a message run in parallel within one time. What does
//     not answer counts for nothing; a list that answers with an error code raises
//     an alarm and is no hit.
//   - While the state is away the rest still judges, and greylisting never
//     defers for ever.
//
// For example:
//
//	f, err := builtin.New(cfg, builtin.Deps{Hostname: "mx2.example.com", State: state, Resolver: net.DefaultResolver})
//	v, err := f.Check(ctx, env, body)        // judges and remembers
//	r, err := f.Explain(ctx, env, body)      // judges only, with reasons
package builtin
