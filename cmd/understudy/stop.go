package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"understudy/dnsfailover"
	"understudy/internal/admin"
)

// stopLimit is how long stop waits for the daemon's end: what systemd gives it.
const stopLimit = 2 * time.Minute

// newStopCommand stops the daemon.
func newStopCommand(a *app) *cobra.Command {
	var handOver bool
	cmd := &cobra.Command{
		Use:   "stop [--hand-over]",
		Short: "Stop the daemon; with --hand-over the other site becomes active first",
		Long: `stop ends the daemon as SIGTERM does: mail that is being received may finish, and
the role stays. With --hand-over an active site first hands the role over, as
switchover does; if that is refused, nothing is stopped.`,
		Example: `  understudy stop --hand-over`,
		Args:    cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return l.withDaemon(cmd, func(ctx context.Context, c *admin.Client) error {
			return a.stop(ctx, c, handOver, syscall.Kill)
		})
	}
	cmd.Flags().BoolVar(&handOver, "hand-over", false, "first make the other site active")
	return cmd
}

// stopper is what stop asks of the daemon.
type stopper interface {
	Status(ctx context.Context) (admin.StatusReport, error)
	FailoverStatus(ctx context.Context) (dnsfailover.Status, error)
	FailoverOrder(ctx context.Context, q dnsfailover.OrderQuestion) (dnsfailover.OrderResult, error)
}

// stop hands over where that is wanted, and ends the process that answered.
func (a *app) stop(ctx context.Context, c stopper, handOver bool, kill func(int, syscall.Signal) error) error {
	if handOver {
		st, err := c.FailoverStatus(ctx)
		if err != nil {
			return err
		}
		if st.Role != dnsfailover.Standby.String() { // fenced: the order names what is missing
			res, err := c.FailoverOrder(ctx, dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: st.PeerSite})
			if err == nil {
				err = res.Err()
			}
			if err != nil {
				return fmt.Errorf("not stopped: %w", err)
			}
			a.printf("%s is active in epoch %d\n", safe(string(res.Active)), res.Epoch)
		}
	}
	report, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if report.PID <= 1 {
		return errors.New("the daemon does not say its process id")
	}
	if err := kill(report.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop process %d: %w", report.PID, err)
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		err := kill(report.PID, 0)
		if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
			a.printf("stopped\n")
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fmt.Errorf("process %d has not ended within %s", report.PID, stopLimit)
		case <-look.C:
		}
	}
}
