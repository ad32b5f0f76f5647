package dnsfailover

import "context"

// Prober says whether a site's services work, end to end.
type Prober interface {
	// Probe tries every service once and returns nil if all that count work. The
	// error is a reason for people, naming the probe; it has no sentinel: whatever
	// went wrong is a failed probe. It returns by ctx's deadline and may be called
	// concurrently. Hysteresis is the caller's.
	Probe(ctx context.Context) error
}
