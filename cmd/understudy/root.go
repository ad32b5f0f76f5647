package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// defaultConfigPath is where the daemon and the commands look for the
// configuration unless -c says otherwise.
const defaultConfigPath = "/etc/understudy/understudy.yaml"

// commands lists the subcommands. A new command is one constructor in its own
// file, taking the app, and one line here.
func commands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newRunHookCommand(a),
		newCheckConfigCommand(a),
		newServeCommand(a),
		newDemoCommand(a),
		newStatusCommand(a),
		newQueueCommand(a),
		newRecipientsCommand(a),
		newSpamCommand(a),
		newMailsyncCommand(a),
		newPeerCommand(a),
		newWitnessCommand(a),
		newBanCommand(a),
		newUnbanCommand(a),
		newBansCommand(a),
		newPlanCommand(a),
		newSwitchoverCommand(a),
		newFailoverCommand(a),
		newPauseCommand(a),
		newResumeCommand(a),
		newMaintenanceCommand(a),
		newHistoryCommand(a),
		newDrillCommand(a),
		newStopCommand(a),
		newAdoptCommand(a),
		newVersionCommand(a),
		newManCommand(a),
	}
}

// newRootCommand builds the whole command line.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "understudy",
		Short: "Two mail servers that stand in for each other",
		Long: `understudy runs beside two mail servers in two datacentres. When one of them
dies, the other already knows the part.`,
		SilenceErrors: true, // app.run reports them
		SilenceUsage:  true,
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.PersistentFlags().StringVarP(&a.configPath, "config", "c", defaultConfigPath, "configuration `file`")
	root.AddCommand(commands(a)...)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	a.prepare(root)
	return root
}

// prepare gives cmd and all below it the habits every command shares: code that
// was reached marks the run as started, and a group named without one of its
// subcommands, or with an unknown one, is a usage error instead of a silent help.
func (a *app) prepare(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.prepare(sub)
	}
	switch {
	case cmd.RunE != nil:
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.started = true
			return run(cmd, args)
		}
	case cmd.Run == nil && cmd.HasSubCommands():
		cmd.SuggestionsMinimumDistance = 2
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = groupWithoutCommand
	}
}

// groupWithoutCommand is what a command that only groups others does when none
// of them was named.
func groupWithoutCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		var names []string
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		return fmt.Errorf("%s needs a command: %s", cmd.CommandPath(), strings.Join(names, ", "))
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q for %q; did you mean %s?", args[0], cmd.CommandPath(), strings.Join(near, " or "))
	}
	return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
}
