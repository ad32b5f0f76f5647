package recipients

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisPage is how many members are asked for at once.
const redisPage = 1000

// redisSet is a fetcher that reads a set from the Redis of this site, a replica
// as a rule. How old the set is says KEY:as_of (seconds of Unix time, written by
// whoever writes the set); else the replica's link to its master.
type redisSet struct {
	cfg SourceConfig
}

var _ fetcher = (*redisSet)(nil)

func (r *redisSet) fetch(ctx context.Context, l *listing) (time.Time, error) {
	opts, err := redis.ParseURL(r.cfg.URL)
	if err != nil {
		return time.Time{}, errors.New("malformed url")
	}
	if r.cfg.SecretFile != "" {
		if opts.Password, err = secret(r.cfg.SecretFile); err != nil {
			return time.Time{}, err
		}
	}
	opts.MaxRetries = -1
	opts.DialerRetries = 1
	opts.ContextTimeoutEnabled = true
	c := redis.NewClient(opts)
	defer c.Close() //nolint:errcheck // read only
	asOf, err := r.asOf(ctx, c)
	if err != nil {
		return time.Time{}, err
	}
	// A set that grows while it is scanned is still returned whole (SCAN's promise
	// for members that are there from start to end).
	var cursor uint64
	for {
		var members []string
		if members, cursor, err = c.SScan(ctx, r.cfg.Key, cursor, "", redisPage).Result(); err != nil {
			return time.Time{}, fmt.Errorf("scan set: %w", err)
		}
		for _, m := range members {
			if err := l.add("member "+strconv.Quote(m), strings.TrimSpace(m)); err != nil {
				return time.Time{}, err
			}
		}
		if cursor == 0 {
			return asOf, nil
		}
	}
}

func (r *redisSet) asOf(ctx context.Context, c *redis.Client) (time.Time, error) {
	now := time.Now()
	stamp, err := c.Get(ctx, r.cfg.Key+":as_of").Int64()
	switch {
	case err == nil:
		if at := time.Unix(stamp, 0); at.Before(now) {
			return at, nil
		}
		return now, nil
	case errors.Is(err, redis.Nil):
	case errors.Is(err, strconv.ErrSyntax), errors.Is(err, strconv.ErrRange):
		return time.Time{}, fmt.Errorf("%s:as_of is no Unix time", r.cfg.Key)
	default:
		return time.Time{}, fmt.Errorf("read age of set: %w", err)
	}
	info, err := c.Info(ctx, "replication").Result()
	if err != nil {
		// A user without the right to ask: the set is as of now, as far as is known.
		return now, nil //nolint:nilerr // see above
	}
	return now.Add(-replicaLag(info)), nil
}

// replicaLag reads how long a replica has been without its master from the
// output of INFO replication.
func replicaLag(info string) time.Duration {
	down := false
	var lag time.Duration
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "master_link_status":
			down = value != "up"
		case "master_link_down_since_seconds":
			if n, err := strconv.ParseInt(value, 10, 32); err == nil && n > 0 {
				lag = time.Duration(n) * time.Second
			}
		}
	}
	if !down {
		return 0
	}
	return lag
}
