package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"understudy/internal/hooks"
)

// newRunHookCommand is what the socket-activated root unit starts: it serves one
// request on standard input and output. Hidden, for nobody types it.
func newRunHookCommand(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:    "run-hook",
		Short:  "Run one hook for the daemon (started by the understudy-hooks unit)",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runHook(cmd.Context(), dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "/etc/understudy/hooks.d", "`directory` of the hooks, owned by root")
	return cmd
}

// runHook answers the request; files must belong to whoever runs this, which the
// unit makes root.
func (a *app) runHook(ctx context.Context, dir string) error {
	conn := struct {
		io.Reader
		io.Writer
	}{a.In, a.Out}
	return hooks.Serve(ctx, conn, dir, uint32(os.Geteuid()))
}
