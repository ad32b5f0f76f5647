// Package sim runs two dnsfailover.Machines and a register in virtual time.
//
// A World has two sites, each with a clock of its own rate, a register that
// answers late, loses requests or answers, and is cut off; and a link between the
// sites that does the same. Sites crash and return, and are stopped and continue.
// A change that was sent arrives even if its sender has died. The World adds up
// for how long both sites act as active: that must be 0, however long it runs.
//
//	w := sim.New(sim.Options{Seed: 1, Drift: 0.02, Loss: 0.1, MaxDelay: 4 * time.Second})
//	w.Chaos(15*time.Minute, 30)
//	w.TwoActive() // 0
package sim
