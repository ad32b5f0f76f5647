// Package engine makes one smtp.Filter of what the section spam names: an engine
// (Rspamd, SpamAssassin, a chain of milters, or the builtin one), ClamAV beside it,
// and what surrounds them.
//
//	Trusted    the other understudy's sealed verdict is taken, others are judged
//	  Stamp    forged header fields go, the verdict is written in front
//	    Chain  the engine, then clamd
//	      Guarded  each with a time limit, a breaker and what to do on failure
//
// Invariants:
//
//   - Within its time-out every check ends with a verdict or an error, whatever
//     the engine does; an engine that fails raises an alarm.
//   - An engine that is known to be away costs a message no time.
//   - No header field that looks like a filter's or like ours reaches a mailbox
//     unless this site, or the other one under the shared key, wrote it.
//
// Example:
//
//	set, err := engine.New(cfg.Spam, engine.Deps{Hostname: "mx2.example.com", Builtin: builtin, Alarms: alarms, Logger: logger})
//	deps.Filter = set.Filter()
package engine
