package recipients

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"understudy/internal/ask"
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
	c, err := r.connect(ctx)
	if err != nil {
		return time.Time{}, err
	}
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

// errLost ends a query whose connection is lost.
var errLost = errors.New("connection lost")

// connect dials by itself: the library's pool would write to stderr what has
// failed. The client has this one connection.
func (r *redisSet) connect(ctx context.Context) (*redis.Client, error) {
	opts, err := redis.ParseURL(r.cfg.URL)
	if err != nil {
		return nil, errors.New("malformed url")
	}
	if r.cfg.SecretFile != "" {
		if opts.Password, err = ask.Secret(r.cfg.SecretFile); err != nil {
			return nil, err
		}
	}
	if opts.TLSConfig != nil {
		if opts.TLSConfig.RootCAs, err = ask.Authorities(r.cfg.Authorities); err != nil {
			return nil, err
		}
	}
	conn, err := redis.NewDialer(opts)(ctx, opts.Network, opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	unused := make(chan net.Conn, 1)
	unused <- conn
	opts.Dialer = func(context.Context, string, string) (net.Conn, error) {
		select {
		case conn := <-unused:
			return conn, nil
		default:
			return nil, errLost
		}
	}
	opts.PoolSize, opts.MinIdleConns = 1, 0
	opts.MaxRetries, opts.DialerRetries = -1, 1
	opts.ContextTimeoutEnabled = true
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(opts), nil
}

// asOf returns the zero time where the age is not known.
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
		// Without it a replica's old set would look new for ever.
		return time.Time{}, fmt.Errorf("the age of the set is in %s:as_of, which is not there, or in INFO, which this user may not ask: %w", r.cfg.Key, err)
	}
	lag, known := replicaLag(info)
	if !known {
		return time.Time{}, nil
	}
	return now.Add(-lag), nil
}

// replicaLag reads how long a replica has not heard from its master from the
// output of INFO replication. A replica that has not reached it since its own
// start does not know.
func replicaLag(info string) (lag time.Duration, known bool) {
	values := make(map[string]string)
	for line := range strings.Lines(info) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			values[key] = value
		}
	}
	since := "master_link_down_since_seconds"
	switch values["master_link_status"] {
	case "": // a master
		return 0, true
	case "up":
		// A master that hangs is silent for long before the link is given up.
		since = "master_last_io_seconds_ago"
	}
	n, err := strconv.ParseInt(values[since], 10, 32)
	if err != nil || n < 0 {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}
