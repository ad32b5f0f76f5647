package lab

// Launch starts the instance and does not wait for its greeting: one that wants a
// PROXY header greets nobody who has none.
func (p *Postfix) Launch() {
	p.host.Helper()
	p.run("postfix", "start")
}
