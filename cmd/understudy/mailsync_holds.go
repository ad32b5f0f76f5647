package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
	"understudy/imapsync/fleet"
)

// accountStatus is one account of "mailsync status" and "mailsync holds".
type accountStatus struct {
	Account string `json:"account"`
	// Running: the daemon has it in hand and answered for it.
	Running bool `json:"running,omitempty"`
	// Known: it has been synchronised from here before.
	Known bool `json:"known"`
	imapsync.Status
}

// read asks the base of an account, or the daemon that has it open.
func (m *mailsyncCommand) read(cmd *cobra.Command, o *fleet.IMAP, a accounts.Account) (accountStatus, error) {
	out := accountStatus{Account: a.Name, Known: o.Known(a.Name)}
	if !out.Known {
		return out, nil
	}
	err := m.base(o, a.Name, func(acc *imapsync.Account) error {
		var err error
		out.Status, err = acc.Status()
		return err
	}, func() error {
		c, err := m.link.client(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		out.Running = true
		out.Status, err = c.MailsyncAccount(cmd.Context(), a.Name)
		return m.link.explain(c, err)
	})
	return out, err
}

func newMailsyncHoldsCommand(m *mailsyncCommand) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "holds [ACCOUNT...]",
		Short: "List deletions that wait for a decision",
		Long: `A deletion that is suspiciously large is not carried out at the other site: it
waits here. approve lets it through, reject puts the messages back where they were
deleted; what nobody decides is rejected when it expires (mailsync.guard.expire).`,
		Example: `  understudy mailsync holds
  understudy mailsync approve alice@example.com
  understudy mailsync reject alice@example.com 3`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := m.all(cmd, args)
			if err != nil {
				return err
			}
			type held struct {
				Account string `json:"account"`
				imapsync.Hold
			}
			holds := []held{}
			for _, st := range list {
				for _, h := range st.Holds {
					holds = append(holds, held{st.Account, h})
				}
			}
			if asJSON {
				return m.a.printJSON(holds)
			}
			for _, h := range holds {
				m.a.printf("%s %s: %s\n", safe(h.Account), safe(h.ID), holdText(h.Hold))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// holdText is a hold in one line.
func holdText(h imapsync.Hold) string {
	text := fmt.Sprintf("%d of %d messages of %s would be deleted at side %s: %s (%s since %s, until %s)",
		h.Messages, h.Of, safe(h.Folder), h.Side, safe(h.Reason), safe(h.State), stamp(h.Created), stamp(h.Expires))
	return text
}

// newMailsyncSettleCommand is "approve" and "reject".
func newMailsyncSettleCommand(m *mailsyncCommand, approve bool) *cobra.Command {
	name, short := "reject", "Put held deletions back: the messages return to where they were deleted"
	if approve {
		name, short = "approve", "Let held deletions through"
	}
	var dryRun bool
	cmd := &cobra.Command{
		Use:   name + " ACCOUNT [HOLD...]",
		Short: short,
		Long: short + `.
Without HOLD it decides all that wait for the account. The next pass acts on it; a
running daemon does so at once.`,
		Example: "  understudy mailsync " + name + " alice@example.com",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := m.load()
			if err != nil {
				return err
			}
			o := m.opener(cfg, m.a.Err, slogWarn)
			account, ids := args[0], args[1:]
			if !o.Known(account) {
				return usageError(fmt.Errorf("%s has never been synchronised from here", safe(account)))
			}
			st, err := m.read(cmd, o, accounts.Account{Name: account})
			if err != nil {
				return err
			}
			waiting, err := waitingHolds(st.Holds, ids)
			if err != nil {
				return err
			}
			for _, h := range waiting {
				m.a.printf("%s %s: %s\n", name, safe(h.ID), holdText(h))
				if dryRun {
					continue
				}
				if err := m.settle(cmd, o, account, h.ID, approve); err != nil {
					return err
				}
			}
			if dryRun {
				m.a.printf("dry run: nothing was changed\n")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would be decided")
	return cmd
}

// waitingHolds picks the holds with these ids; none: all that nobody decided yet. It is an error where
// nothing is left to decide.
func waitingHolds(holds []imapsync.Hold, ids []string) ([]imapsync.Hold, error) {
	var out []imapsync.Hold
	if len(ids) == 0 {
		for _, h := range holds {
			if h.State == "waiting" {
				out = append(out, h)
			}
		}
		if len(out) == 0 {
			return nil, errors.New("nothing is held for this account that waits for a decision")
		}
		return out, nil
	}
	for _, id := range ids {
		found := false
		for _, h := range holds {
			if h.ID == id {
				out, found = append(out, h), true
			}
		}
		if !found {
			return nil, fmt.Errorf("%s: %w", safe(id), imapsync.ErrNoHold)
		}
	}
	return out, nil
}

func (m *mailsyncCommand) settle(cmd *cobra.Command, o *fleet.IMAP, account, id string, approve bool) error {
	return m.base(o, account, func(acc *imapsync.Account) error {
		if approve {
			return acc.Approve(id)
		}
		return acc.Reject(id)
	}, func() error {
		c, err := m.link.client(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		return m.link.explain(c, c.SettleHolds(cmd.Context(), account, id, approve))
	})
}

// all reads the accounts that fit patterns; none: all.
func (m *mailsyncCommand) all(cmd *cobra.Command, patterns []string) ([]accountStatus, error) {
	cfg, err := m.load()
	if err != nil {
		return nil, err
	}
	list, err := m.pick(cmd.Context(), cfg, patterns)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(cfg.MailsyncDir()); errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("%s: %w; run this as root or as the daemon's user", cfg.MailsyncDir(), err)
	}
	o := m.opener(cfg, m.a.Err, slogWarn)
	out := make([]accountStatus, len(list))
	for i, a := range list {
		if out[i], err = m.read(cmd, o, a); err != nil {
			return nil, err
		}
	}
	return out, nil
}
