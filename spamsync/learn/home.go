package learn

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// homeKey is written to see whether Redis takes writes; it lives a second.
const homeKey = "us:learn:home"

// RedisHome returns what says whether the Redis that an engine writes to takes
// writes now: it writes a key of its own there. timeout bounds one question.
func RedisHome(client redis.UniversalClient, timeout time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if err := client.Set(ctx, homeKey, "1", time.Second).Err(); err != nil {
			return fmt.Errorf("redis takes no writes: %w", err)
		}
		return nil
	}
}
