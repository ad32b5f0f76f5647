package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
	"understudy/internal/bans"
)

// parseBanned reads an address or a network; bits behind the mask are cleared.
func parseBanned(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, usageError(fmt.Errorf("%q is no address and no network: write 192.0.2.7 or 192.0.2.0/24", text))
	}
	return p.Masked(), nil
}

func newBanCommand(a *app) *cobra.Command {
	var length time.Duration
	var reason string
	cmd := &cobra.Command{
		Use:   "ban NETWORK",
		Short: "Keep a client or network away from both sites",
		Long: `ban shuts an address or network out of every listener of both sites: mail and
tunnels, connections that are open included. The other site follows at once, or as
soon as it can be reached. Banning again changes time and reason.`,
		Example: `  understudy ban 192.0.2.7 --for 1h --reason "password guessing"
  understudy ban 2001:db8:5::/48`,
		Args: cobra.ExactArgs(1),
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := parseBanned(args[0])
		if err != nil {
			return err
		}
		if length < 0 {
			return usageError(fmt.Errorf("--for %s is negative", length))
		}
		return l.changeBan(cmd, admin.BanRequest{Network: p, For: length, Reason: reason})
	}
	cmd.Flags().DurationVar(&length, "for", 0, "how long, as 1h30m (default: until it is lifted)")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the list")
	return cmd
}

func newUnbanCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "unban NETWORK",
		Short:   "Lift a ban at both sites",
		Example: `  understudy unban 192.0.2.7`,
		Args:    cobra.ExactArgs(1),
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := parseBanned(args[0])
		if err != nil {
			return err
		}
		return l.changeBan(cmd, admin.BanRequest{Network: p, Lift: true})
	}
	return cmd
}

func (l *adminLink) changeBan(cmd *cobra.Command, req admin.BanRequest) error {
	c, err := l.client(cmd)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.ChangeBan(cmd.Context(), req)
	return l.explain(c, err)
}

func newBansCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bans",
		Short: "List the networks that may not connect",
		Args:  cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := l.client(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		list, err := c.Bans(cmd.Context())
		if err != nil {
			return l.explain(c, err)
		}
		if asJSON {
			return a.printDaemonJSON(list)
		}
		for i := range list {
			a.printf("%s\n", banLine(&list[i]))
		}
		return nil
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// banLine is one ban for people.
func banLine(e *bans.Entry) string {
	until := "until it is lifted"
	if !e.Until.IsZero() {
		until = "until " + stamp(e.Until)
	}
	line := fmt.Sprintf("%-24s %s, since %s at site %s", e.Network, until, stamp(e.Changed), safe(e.Site))
	if e.Reason != "" {
		line += ": " + safe(strings.TrimSpace(e.Reason))
	}
	return line
}
