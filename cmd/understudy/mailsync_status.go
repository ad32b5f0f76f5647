package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
)

// slogWarn is what commands show of what packages log.
const slogWarn = slog.LevelWarn

func newMailsyncStatusCommand(m *mailsyncCommand) *cobra.Command {
	var (
		asJSON bool
		maxAge time.Duration
	)
	cmd := &cobra.Command{
		Use:   "status [ACCOUNT...]",
		Short: "Show when accounts were last equal, and what waits",
		Long: `status reads what the last passes wrote down; it asks no mail server. It exits
with 1 where an account was not equal at its last pass, has held deletions or, with
--max-age, has not been equal for that long.`,
		Example: `  understudy mailsync status
  understudy mailsync status --max-age 1h '*@example.com'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := m.all(cmd, args)
			if err != nil {
				return err
			}
			if asJSON {
				if err := m.a.printJSON(list); err != nil {
					return err
				}
			}
			behind := 0
			for i := range list {
				text, ok := statusText(&list[i], maxAge)
				if !ok {
					behind++
				}
				if !asJSON {
					m.a.printf("%s: %s\n", safe(list[i].Account), text)
				}
			}
			if behind > 0 {
				return fmt.Errorf("%d of %s not equal", behind, count(len(list), "account"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&maxAge, "max-age", 0, "an account that has not been equal for this `long` is behind")
	return cmd
}

// statusText is an account in one line, and whether all is well with it.
func statusText(st *accountStatus, maxAge time.Duration) (string, bool) {
	if !st.Known {
		return "has never been synchronised from here", false
	}
	ok := st.LastError == "" && len(st.Holds) == 0 && !st.LastClean.IsZero() && !st.LastClean.Before(st.LastPass)
	text := "never equal yet"
	if !st.LastClean.IsZero() {
		age := time.Since(st.LastClean)
		text = fmt.Sprintf("equal %s ago", age.Round(time.Second))
		if maxAge > 0 && age > maxAge {
			ok = false
		}
	}
	text += fmt.Sprintf(", %s in %s", plural(st.Messages, "message"), plural(st.Folders, "folder"))
	if st.Pending > 0 {
		text += fmt.Sprintf(", %d unconfirmed", st.Pending)
	}
	if st.Conflicts > 0 {
		text += fmt.Sprintf(", %d conflicts decided so far", st.Conflicts)
	}
	if n := len(st.Holds); n > 0 {
		text += fmt.Sprintf(", %d HELD (mailsync holds)", n)
	}
	if st.LastError != "" {
		text += ", FAILED: " + safe(st.LastError)
	}
	if st.Running {
		text += " (in the daemon's hand)"
	}
	return text, ok
}
