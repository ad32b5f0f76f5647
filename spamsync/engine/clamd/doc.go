// Package clamd asks ClamAV's clamd whether a message carries malware, by
// zINSTREAM, and rejects it where it does.
//
// Invariants:
//
//   - Only "OK" accepts and only "FOUND" rejects; anything else is an error.
//   - A message beyond clamd's StreamMaxLength is accepted or deferred, as the
//     configuration says; it is never taken for clean without that word.
//
// Example:
//
//	filter, err := clamd.New(clamd.Options{Addresses: []string{"/run/clamav/clamd.ctl"}, Timeout: 30 * time.Second})
//	all := smtp.Chain{filter, spamFilter}
package clamd
