// Package demo plays the story of two mail servers on one machine, in about a
// minute, without root and without any server installed.
//
// The backup is the real program: a child process of this very binary running
// serve, with a spool on disk, talked to over SMTP and its operators' socket,
// and killed with SIGKILL in mid-story. What is a stand-in says so: the primary
// is a small SMTP server (go-smtp's) that keeps what it gets in memory, and the
// sender is a loop that tries the MX hosts in order, as senders do.
//
// The demo proves what it claims: every message is compared byte by byte, and
// the exit code is 1 if one is missing, altered or there twice without a reason.
//
//	err := demo.Run(ctx, demo.Options{Binary: exe, Out: os.Stdout})
package demo
