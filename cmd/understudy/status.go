package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
)

func newStatusCommand(a *app) *cobra.Command {
	var asJSON, check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the running daemon at a glance",
		Long: `status shows what the daemon is, what it listens on, how much mail waits, whether
its next hops answer, how fresh its recipients are, and which alarms are raised.
With --check it exits with 1 while an alarm is raised, for monitoring.`,
		Example: `  understudy status
  understudy status --check --json`,
		Args: cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := l.client(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		st, err := c.Status(cmd.Context())
		if err != nil {
			return l.explain(c, err)
		}
		if asJSON {
			err = a.printDaemonJSON(st)
		} else {
			a.printStatus(&st)
		}
		if err == nil && check && len(st.Alarms) > 0 {
			err = fmt.Errorf("%s raised", plural(len(st.Alarms), "alarm"))
		}
		return err
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 while an alarm is raised")
	return cmd
}

func (a *app) printStatus(st *admin.StatusReport) {
	head := "understudy " + safe(st.Version)
	if st.Site != "" {
		head += ", site " + safe(st.Site)
	}
	if st.Stopping {
		head += ", STOPPING"
	}
	a.printf("%s\n", head)
	if st.Role != "" {
		role := safe(st.Role)
		if st.Active != "" {
			role += fmt.Sprintf(" (active: %s, epoch %d)", safe(st.Active), st.Epoch)
		}
		a.field("Role", role)
	}
	if !st.Started.IsZero() {
		a.field("Running", fmt.Sprintf("%s, process %d", humanAge(time.Since(st.Started)), st.PID))
	}
	for _, l := range st.Listeners {
		a.field("Listens", safe(l.Name)+" "+safe(l.Address))
	}
	if st.Queue != nil {
		a.field("Queue", totalsLine(st.Queue))
	}
	for i := range st.Hops {
		a.field("Next hop", hopLine(&st.Hops[i]))
	}
	for i := range st.Sources {
		a.field("Recipients", sourceLine(&st.Sources[i]))
	}
	for _, name := range slices.Sorted(maps.Keys(st.Parts)) {
		a.field(safe(name), safe(st.Parts[name]))
	}
	if len(st.Alarms) == 0 {
		a.field("Alarms", "none")
	}
	for _, al := range st.Alarms {
		a.field("ALARM", safe(al.Key)+": "+safe(al.Text)+", since "+stamp(al.Since))
	}
}
