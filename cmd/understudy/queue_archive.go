package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
)

func newQueueExportCommand(q *queueCommand) *cobra.Command {
	var (
		f    filters
		file string
	)
	cmd := &cobra.Command{
		Use:   "export [ID...]",
		Short: "Copy messages out as a tar stream",
		Long: `export writes a tar stream with two files for each message: ID.json, its
envelope and state, and ID.eml, its bytes. The messages stay in the queue. import
reads the stream at another site or in another year.

It shows the content of mail, so the daemon allows it only where
queue.allow_body_access is set, and logs it with your user name.
` + filterHelp,
		Example: `  understudy queue export --all -o queue.tar
  understudy queue export --domain example.com | ssh mx3 understudy queue import
  understudy queue --offline /var/lib/understudy/spool export --all -o rescue.tar`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := f.required(q.a, args)
			if err != nil {
				return err
			}
			if file == "" && terminalOf(q.a.Out) != nil {
				return usageError(errors.New("a tar stream is nothing for a terminal: use -o FILE or a pipe"))
			}
			src, explain, err := q.source(cmd)
			if err != nil {
				return err
			}
			defer src.Close()
			req := admin.ExportRequest{Selection: sel, All: f.all}
			if file == "" || file == "-" {
				return explain(src.Export(cmd.Context(), req, q.a.Out))
			}
			n, err := writeExport(file, func(w io.Writer) error { return src.Export(cmd.Context(), req, w) })
			if err != nil {
				return explain(err)
			}
			q.a.printf("exported %s to %s\n", plural(n, "message"), file)
			return nil
		},
	}
	addFilters(cmd, &f)
	addAll(cmd, &f)
	cmd.Flags().StringVarP(&file, "output", "o", "", "write to `file`, readable by you alone")
	return cmd
}

// writeExport writes file whole or not at all, and counts the messages in it. An
// existing file is not overwritten.
func writeExport(file string, export func(io.Writer) error) (n int, err error) {
	if _, err := os.Lstat(file); err == nil {
		return 0, fmt.Errorf("%s exists already", file)
	}
	part := file + ".part"
	out, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return 0, fmt.Errorf("write export: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	err = export(out)
	if err == nil {
		n, err = countMessages(out)
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return 0, err
	}
	if err := os.Rename(part, file); err != nil {
		return 0, fmt.Errorf("write export: %w", err)
	}
	return n, nil
}

// countMessages reads a tar from its start to its trailer.
func countMessages(f io.ReadSeeker) (int, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read export: %w", err)
	}
	n := 0
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read export: %w", err)
		}
		if strings.HasSuffix(h.Name, ".eml") {
			n++
		}
	}
}

func newQueueImportCommand(q *queueCommand) *cobra.Command {
	c := &change{q: q, done: "imported"}
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Queue the messages of an exported stream",
		Long: `import queues the messages that export has written, from FILE or standard input.
Recipients that had been delivered are not delivered again; held messages stay
held. A message keeps its id unless that is taken. Importing a stream twice
queues its messages twice.`,
		Example: `  understudy queue import queue.tar
  ssh mx1 understudy queue export --all | understudy queue import`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, name := q.a.In, "standard input"
			if len(args) == 1 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("read import: %w", err)
				}
				defer func() { _ = f.Close() }()
				in, name = f, args[0]
			}
			client, err := q.online(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			result, err := client.Import(cmd.Context(), in)
			var e *admin.Error
			if errors.As(err, &e) && e.Code == admin.CodeBadRequest {
				e.Text = name + ": " + e.Text
				e.Code = admin.CodeInternal // the file is wrong, not the command line
			}
			return c.report(client, result, err)
		},
	}
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print JSON")
	return cmd
}
