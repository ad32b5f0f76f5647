// Package wire is SMTP as bytes: a strict server and a pipelining client. It
// knows nothing of mail policy, queues or files.
package wire
