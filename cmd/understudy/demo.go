package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"understudy/internal/demo"
)

// newDemoCommand plays the story on loopback.
func newDemoCommand(a *app) *cobra.Command {
	var messages int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch a primary die and lose nothing, on this machine, without root",
		Long: `Play the story on loopback: a stand-in primary and a real backup, mail through
both, a dead primary, a crashed backup, a flush, and a count that compares every
message byte by byte. It needs no root, no configuration and no mail server.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), messages) },
	}
	cmd.Flags().IntVar(&messages, "messages", 0, "messages in each act (default 25)")
	return cmd
}

func (a *app) demo(ctx context.Context, messages int) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return demo.Run(ctx, demo.Options{Binary: exe, Out: a.Out, Messages: messages})
}
