package parity

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// redisTimeout bounds one question to Redis.
	redisTimeout = 5 * time.Second
	// catchUp is how long a replica may take to have what its master had.
	catchUp = 5 * time.Second
	// pingBytes is what the keep-alive of Redis takes in the replication stream:
	// "*1\r\n$4\r\nPING\r\n". It is no write.
	pingBytes = 14
)

// RedisView is one Redis as replication sees it.
type RedisView struct {
	Role   string `json:"role"`
	Linked bool   `json:"linked"`
	ID     string `json:"id"`
	Offset int64  `json:"offset"`
	// Changes counts writes since the last snapshot.
	Changes int64 `json:"changes"`
	// Clock is how far its clock is ahead of ours.
	Clock time.Duration `json:"-"`
}

// viewRedis asks one Redis.
func viewRedis(ctx context.Context, c redis.UniversalClient) (RedisView, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	info, err := c.Info(ctx, "replication").Result()
	if err != nil {
		return RedisView{}, fmt.Errorf("ask redis: %w", err)
	}
	more, err := c.Info(ctx, "persistence").Result()
	if err != nil {
		return RedisView{}, fmt.Errorf("ask redis: %w", err)
	}
	v := parseInfo(info + more)
	sent := time.Now()
	now, err := c.Time(ctx).Result()
	if err != nil {
		return RedisView{}, fmt.Errorf("ask redis: %w", err)
	}
	v.Clock = now.Sub(sent.Add(time.Since(sent) / 2))
	return v, nil
}

func parseInfo(info string) RedisView {
	var v RedisView
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch key {
		case "role":
			v.Role = value
		case "master_link_status":
			v.Linked = value == "up"
		case "master_replid":
			v.ID = value
		case "master_repl_offset":
			v.Offset = n
		case "rdb_changes_since_last_save":
			v.Changes = n
		}
	}
	return v
}

// differRedis says what is wrong between both. Exactly one must follow the other;
// or both are the same server, or follow a third.
func differRedis(here, peer RedisView) []Difference {
	var out []Difference
	fault := func(what, a, b string) { out = append(out, Difference{Aspect: "redis", Name: what, Here: a, Peer: b}) }
	state := func(v RedisView) string {
		if v.Role == "slave" && !v.Linked {
			return "replica without its master"
		}
		if v.Role == "slave" {
			return "replica"
		}
		return v.Role
	}
	if here.ID != peer.ID {
		fault("replication", state(here), state(peer))
		fault("replication id", here.ID, peer.ID)
		return out
	}
	for _, v := range []RedisView{here, peer} {
		if v.Role == "slave" && !v.Linked {
			fault("replication", state(here), state(peer))
			break
		}
	}
	return out
}

// written is how many bytes, or where Redis replicates nothing how many changes,
// came between two views of one Redis; keep-alives do not count.
func written(before, after RedisView, elapsed time.Duration) int64 {
	if before.Offset == 0 && after.Offset == 0 {
		return max(after.Changes-before.Changes, 0)
	}
	n := after.Offset - before.Offset
	if pings := n / pingBytes; n%pingBytes == 0 && pings <= int64(elapsed/time.Second)+1 {
		return 0
	}
	return n
}
