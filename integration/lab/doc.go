// Package lab runs what a story needs: real mail servers, load generators, a
// client and a next hop of its own, a slow line, and the understudy binary as a
// process that can be killed and started again.
//
// Nothing here shares code with smtp/wire: a fault there must not hide behind
// the same fault here.
//
// Invariants:
//
//   - Everything listens on loopback, on a port the kernel picked, and lives
//     under one scratch directory with a short path (unix sockets are in it).
//   - What is started is stopped by its own process id, at the latest by the
//     Host's cleanup. No system service, user or address is touched.
//   - A function that cannot do its work ends the story through Host.Fatalf.
//
// For example, a primary that comes back after mail has queued for it:
//
//	primary := lab.NewPostfix(t, lab.PostfixConfig{Domain: "example.test"})
//	backup := lab.NewUnderstudy(t, "smtp://"+primary.Addr, nil)
//	backup.Start()
//	client, err := lab.Dial(t.Context(), backup.SMTP)
//	err = client.Send(lab.Mail{From: "a@ext.test", To: "b@example.test"}.Message(1, lab.Line))
//	primary.Start()
//	_, code := backup.CLI("queue", "flush", "--wait")
package lab
