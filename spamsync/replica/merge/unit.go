package merge

import (
	"bytes"
	"context"
	"errors"
	"io"

	"understudy/spamsync/replica/stream"
)

// unit is what happened at once: a transaction, or a single command.
type unit struct {
	db    int
	cmds  []stream.Command // without MULTI, EXEC, SELECT, PING and the like
	end   stream.Point
	bytes int64
	raw   int64 // commands of the stream, all of them
	// from is the site it came from by an earlier merge; empty for the follower's own.
	from string
}

// units cuts a stream into units.
type units struct {
	it stream.Iterator
	db int // for commands before the first SELECT
	// unknownDB is set when a command came before the first SELECT.
	unknownDB bool
}

// next returns the next unit; io.EOF at the end. A transaction that the stream does
// not finish is not returned: it did not happen.
func (u *units) next(ctx context.Context) (unit, error) {
	var out unit
	open := false
	for {
		cmd, err := u.it.Next(ctx)
		if err != nil {
			if errors.Is(err, io.EOF) && !open && out.raw > 0 {
				return out, nil
			}
			return unit{}, err
		}
		if open && cmd.ID != out.end.ID {
			// The server crashed inside the transaction: it did not happen.
			open, out.cmds = false, nil
		}
		out.raw++
		out.bytes += int64(len(cmd.Raw))
		out.end = cmd.At()
		switch {
		case cmd.Is("MULTI"):
			open = true
		case cmd.Is("EXEC"):
			return u.finish(out), nil
		case ignored(cmd):
		default:
			if cmd.DB == stream.UnknownDB {
				u.unknownDB = true
				cmd.DB = u.db
			}
			out.cmds = append(out.cmds, cmd.Clone())
			if !open {
				return u.finish(out), nil
			}
		}
	}
}

func (u *units) finish(out unit) unit {
	if len(out.cmds) == 0 {
		return out
	}
	out.db = out.cmds[0].DB
	// The mark is the first command of a batch of a merge.
	first := out.cmds[0]
	if first.Is("HSET") && len(first.Args) > 1 {
		if site, ok := bytes.CutPrefix(first.Args[1], []byte(ownMark)); ok {
			out.from = string(site)
		}
	}
	return out
}

// ignored commands change no data.
func ignored(cmd stream.Command) bool {
	switch cmd.Name() {
	case "", "PING", "SELECT", "REPLCONF", "PUBLISH", "SPUBLISH", "SCRIPT", "DISCARD":
		return true
	}
	return false
}
