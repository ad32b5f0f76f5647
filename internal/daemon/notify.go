package daemon

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notifier tells the service manager how we are (sd_notify(3)). Where there is
// none, every call does nothing.
type notifier struct{ log *slog.Logger }

// tell sends states such as "READY=1".
func (n notifier) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("service manager not told", "state", state, "err", err)
	}
}

// watchdog sends WATCHDOG=1 at half the interval the manager asked for, as long
// as alive answers nil within that time, until ctx ends. A daemon whose spool
// hangs is restarted rather than left to look healthy.
func (n notifier) watchdog(ctx context.Context, alive func(context.Context) error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			cctx, cancel := context.WithTimeout(ctx, interval/2)
			err := alive(cctx)
			cancel()
			if err != nil {
				n.log.Error("watchdog not fed", "err", err)
				continue
			}
			n.tell(daemon.SdNotifyWatchdog)
		}
	}
}

// monotonicMicroseconds is CLOCK_MONOTONIC, which RELOADING=1 wants.
func monotonicMicroseconds() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return ts.Nano() / int64(time.Microsecond)
}
