// Package probe asks an SMTP server, of any make, awkward questions: raw byte
// sequences that tell a strict receiver from one that can be talked into losing,
// cutting or smuggling mail. It is test support; it needs nothing but a host:port.
//
//	for _, p := range probe.Table() {
//		if err := p.Run(ctx, probe.Target{Addr: "127.0.0.1:25", From: "a@example.org", To: "b@example.com"}); err != nil {
//			fmt.Println(p.Name, err)
//		}
//	}
//
// Invariant: a probe ends within Target.Timeout and leaves nothing behind but the
// messages that the server took.
package probe
