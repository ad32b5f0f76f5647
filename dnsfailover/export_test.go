package dnsfailover

// Faults are the mistakes that tests plant in a machine.
type Faults = faults

// Plant makes the mistakes.
func (m *Machine) Plant(f Faults) { m.faults = f }

// The mistakes by name.
var (
	NoWait               = Faults{noWait: true}
	NoObjection          = Faults{noObjection: true}
	PermitDuringClaim    = Faults{permitDuringClaim: true, noObjection: true}
	PermitFromReply      = Faults{permitFromReply: true}
	WaitFromSending      = Faults{waitFromSending: true}
	PromiseDuringClaim   = Faults{promiseDuringClaim: true}
	PromiseBeforeRead    = Faults{promiseBeforeRead: true}
	ResumeWait           = Faults{resumeWait: true}
	PermitWithoutRenewal = Faults{permitWithoutRenewal: true}
	PermitDuringHandOver = Faults{permitDuringHandOver: true}
)
