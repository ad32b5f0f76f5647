package recipients

import (
	"context"
	"io"
	"time"

	"understudy/internal/ask"
)

// command is a fetcher that runs a program and reads its output. Output counts
// only if the program ends with status 0.
type command struct {
	argv   []string
	format string
	max    int64
}

var _ fetcher = (*command)(nil)

func newCommand(sc SourceConfig) *command {
	argv := sc.Command
	if sc.Shell {
		argv = []string{"/bin/sh", "-c", sc.Command[0]}
	}
	return &command{argv: argv, format: sc.Format, max: sc.MaxBytes}
}

func (c *command) fetch(ctx context.Context, l *listing) (time.Time, error) {
	asOf := time.Now()
	err := ask.Command(ctx, c.argv, func(out io.Reader) error { return l.read(ctx, out, c.format, c.max) })
	if err != nil {
		return time.Time{}, err
	}
	return asOf, nil
}
