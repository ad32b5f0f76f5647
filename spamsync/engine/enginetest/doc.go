// Package enginetest holds what every engine must do: one conformance suite for
// implementations of smtp.Filter that ask a server, and small servers to run it
// against on real sockets.
//
// Example:
//
//	func TestConformance(t *testing.T) {
//		enginetest.Run(t, func(t *testing.T, b enginetest.Behaviour, timeout time.Duration) enginetest.Subject {
//			...
//		})
//	}
package enginetest
