package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxInfoBytes bounds the answer to INFO.
const maxInfoBytes = 1 << 20

// Info is what a server says about its replication (INFO replication).
type Info struct {
	// Role is "master" or "slave".
	Role string
	// Now is where the server is.
	Now Point
	// Before is the history it had before it was promoted or restarted, and the
	// place up to which both are the same; zero where there is none.
	Before Point
	// Master is host:port of the server that a replica follows; LinkUp says whether
	// it does so now.
	Master string
	LinkUp bool
	// BacklogFirst and BacklogBytes are the bytes it still has: offsets
	// BacklogFirst to BacklogFirst+BacklogBytes. No backlog is active where
	// BacklogBytes is 0 and Backlog false.
	Backlog      bool
	BacklogFirst int64
	BacklogBytes int64
}

// ErrNoCommonHistory says that two servers have no point in common.
var ErrNoCommonHistory = errors.New("no common history")

// ParseInfo reads the text of INFO replication.
func ParseInfo(text string) (Info, error) {
	f := make(map[string]string)
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			f[key] = value
		}
	}
	var errs []error
	number := func(key string) int64 {
		n, err := strconv.ParseInt(f[key], 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		return n
	}
	in := Info{
		Role:         f["role"],
		Now:          Point{ID: f["master_replid"], Offset: number("master_repl_offset")},
		LinkUp:       f["master_link_status"] == "up",
		Backlog:      f["repl_backlog_active"] == "1",
		BacklogBytes: number("repl_backlog_histlen"),
		BacklogFirst: number("repl_backlog_first_byte_offset") - 1,
	}
	if second := number("second_repl_offset"); second > 0 && strings.Trim(f["master_replid2"], "0") != "" {
		in.Before = Point{ID: f["master_replid2"], Offset: second - 1}
	}
	if f["master_host"] != "" {
		in.Master = f["master_host"] + ":" + f["master_port"]
	}
	if in.Role == "" || in.Now.ID == "" {
		errs = append(errs, errors.New("role or id is missing"))
	}
	if err := errors.Join(errs...); err != nil {
		return Info{}, fmt.Errorf("%w: INFO replication: %w", ErrProtocol, err)
	}
	return in, nil
}

// FetchInfo asks a server on a connection of its own.
func FetchInfo(ctx context.Context, o Options) (Info, error) {
	c, err := Dial(ctx, o)
	if err != nil {
		return Info{}, err
	}
	defer func() { _ = c.Close() }()
	line, err := c.ask(ctx, "INFO", "replication")
	if err != nil {
		return Info{}, err
	}
	n, err := strconv.Atoi(strings.TrimPrefix(line, "$"))
	if err != nil || n < 0 || n > maxInfoBytes {
		return Info{}, fmt.Errorf("%w: answer to INFO: %q", ErrProtocol, line)
	}
	text, err := c.r.bytes(n)
	if err != nil {
		return Info{}, fmt.Errorf("INFO: %w", err)
	}
	return ParseInfo(text)
}

// Fork is the place after which home lacks what the follower did, under an id they
// share; ErrNoCommonHistory where they share none. Two servers that did not diverge
// have the smaller of their offsets.
//
// Where both have left the history they shared (home was promoted, and the follower
// crashed as its master and came back at an older place), it is the place where home
// left: home has everything before it, also what the follower lost.
func Fork(follower, home Info) (Point, error) {
	var best Point
	for _, f := range []Point{follower.Now, follower.Before} {
		for _, h := range []Point{home.Now, home.Before} {
			if f.IsZero() || f.ID != h.ID {
				continue
			}
			common := min(f.Offset, h.Offset)
			if f == follower.Before && h == home.Before {
				common = h.Offset
			}
			if best.IsZero() || common > best.Offset {
				best = Point{ID: f.ID, Offset: common}
			}
		}
	}
	if best.IsZero() {
		return Point{}, fmt.Errorf("%w: %v and %v", ErrNoCommonHistory, follower.Now, home.Now)
	}
	return best, nil
}
