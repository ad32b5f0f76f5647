// Package arbitertest has the conformance suite of dnsfailover.Arbiter and an
// in-memory register that passes it.
//
//	zone := arbitertest.NewZone()
//	a, b := zone.Client(), zone.Client()
//
// An implementation with a real server behind it writes a Lab and calls Run.
package arbitertest
