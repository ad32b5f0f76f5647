// Package queuetest has the conformance suite of smtp.Queue and an in-memory
// fake that passes it. Packages that use a queue test with the fake:
//
//	q := queuetest.New()
//	front := smtp.NewFront(..., q, ...)
//	...
//	got := q.Messages()
package queuetest
