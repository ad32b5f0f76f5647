// Package daemon is the assembly: it turns a configuration into objects, starts
// them in an order in which each finds what it needs, and stops them in reverse.
// It is the only package that builds objects of two others; none imports it
// but cmd and the demo.
//
// Order of the start: lock and recover the spool, then the recipients, then the
// relay, then the operators' socket, then the SMTP listeners, then READY=1 to
// the service manager. The stop is the reverse, each step named and bounded; a
// step that fails does not keep the next from running.
//
//	d, err := daemon.New(cfg, daemon.Options{Log: log, ConfigPath: path})
//	...
//	err = d.Run(ctx) // returns when everything has ended
package daemon
