// Package statetest is the conformance suite of spamsync.State: every
// implementation and every fake passes it.
//
//	statetest.Run(t, func(t *testing.T) statetest.Subject {
//		return statetest.Subject{State: spamsync.NewMemory(nil)}
//	})
package statetest
