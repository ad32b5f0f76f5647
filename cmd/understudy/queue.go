package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
	"understudy/smtp/queue"
)

// queueCommand is what all commands below "queue" share.
type queueCommand struct {
	*adminLink
	// offline is the spool directory of a dead daemon, where one is read.
	offline string
}

func newQueueCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "See and steer the mail that is waiting",
		Long: `queue shows and changes the mail this site has accepted and not yet delivered.

Every listing takes --json, everything that changes something --dry-run. Exit
codes: 0 done, 1 not everything was done, 2 usage, 3 the daemon is not reachable.
With --offline DIR the commands list, show and export read the spool of a daemon
that is not running; nothing is written.`,
		Example: `  understudy queue list --older-than 1h --error "mailbox full"
  understudy queue flush --wait
  understudy queue hold --domain example.com --reason "migration tonight"
  understudy queue --offline /var/lib/understudy/spool export --all -o rescue.tar`,
	}
	q := &queueCommand{adminLink: newAdminLink(a, cmd)}
	cmd.PersistentFlags().StringVar(&q.offline, "offline", "", "read the spool in `dir` instead of asking a daemon")
	cmd.AddCommand(
		newQueueListCommand(q),
		newQueueShowCommand(q),
		newQueueWhyCommand(q),
		newQueueHoldCommand(q),
		newQueueReleaseCommand(q),
		newQueueFlushCommand(q),
		newQueueRequeueCommand(q),
		newQueueDeleteCommand(q, ""),
		newQueueBounceCommand(q, ""),
		newQueueStatsCommand(q),
		newQueueWatchCommand(q),
		newQueueSearchCommand(q),
		newQueueExportCommand(q),
		newQueueImportCommand(q),
		newQueueRulesCommand(q),
		newQueueHopsCommand(q),
		newQueueRefusedCommand(q),
	)
	return cmd
}

// online is client, for commands that need a living daemon.
func (q *queueCommand) online(cmd *cobra.Command) (*admin.Client, error) {
	if q.offline != "" {
		return nil, usageError(errors.New(cmd.CommandPath() + " needs the running daemon; with --offline only list, show and export are possible"))
	}
	return q.client(cmd)
}

// mailSource is where list, show and export read: the daemon, or its spool.
type mailSource interface {
	// List calls fn for every selected message, oldest first.
	List(ctx context.Context, sel admin.Selection, fn func(queue.Summary) error) error
	// ListJSON writes the selected messages as a JSON array.
	ListJSON(ctx context.Context, sel admin.Selection, w io.Writer) error
	// Show returns all about one message.
	Show(ctx context.Context, id string) (queue.Detail, error)
	// Body returns the stored bytes of one message; the caller closes them.
	Body(ctx context.Context, id string) (io.ReadCloser, error)
	// Export writes the selected messages as a tar stream.
	Export(ctx context.Context, req admin.ExportRequest, w io.Writer) error
	// Close ends the use of the source.
	Close()
}

// source opens the daemon or, with --offline, the spool; explain makes its
// errors ready for the user.
func (q *queueCommand) source(cmd *cobra.Command) (src mailSource, explain func(error) error, err error) {
	if q.offline != "" {
		off, err := queue.OpenOffline(q.offline)
		if err != nil {
			return nil, nil, err
		}
		return offlineSource{off}, func(err error) error { return err }, nil
	}
	c, err := q.client(cmd)
	if err != nil {
		return nil, nil, err
	}
	return c, func(err error) error { return q.explain(c, err) }, nil
}

// offlineSource reads the spool of a dead daemon.
type offlineSource struct{ *queue.Offline }

// List implements mailSource.
func (o offlineSource) List(ctx context.Context, sel admin.Selection, fn func(queue.Summary) error) error {
	list, err := o.Offline.List(ctx, sel)
	if err != nil {
		return err
	}
	for _, m := range list {
		if err := fn(m); err != nil {
			return err
		}
	}
	return nil
}

// ListJSON implements mailSource.
func (o offlineSource) ListJSON(ctx context.Context, sel admin.Selection, w io.Writer) error {
	list, err := o.Offline.List(ctx, sel)
	if err != nil {
		return err
	}
	return admin.WriteList(w, list)
}

// Export implements mailSource.
func (o offlineSource) Export(ctx context.Context, req admin.ExportRequest, w io.Writer) error {
	_, err := o.Offline.Export(ctx, w, req.Selection)
	return err
}

// Close implements mailSource.
func (o offlineSource) Close() { _ = o.Offline.Close() } // it was only read

var _ mailSource = (*admin.Client)(nil)
