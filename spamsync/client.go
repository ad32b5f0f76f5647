package spamsync

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"
)

// OpenClient returns a client for the Redis at address with the user, password,
// database and time-out of c. It reads the password file, and does not dial.
func OpenClient(c RedisConfig, address string) (redis.UniversalClient, error) {
	password := ""
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("password_file: %w", err)
		}
		password, _, _ = strings.Cut(string(text), "\n")
		password = strings.TrimRight(password, "\r")
	}
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: []string{address}, DB: c.DB, Username: c.Username, Password: password,
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, PoolTimeout: c.Timeout,
	}), nil
}

// LogClientsTo sends what the Redis client library has to say to log, at Debug:
// failed dials are returned as errors as well, and standard error is not for
// lines in another form. The library has one logger for the whole process, so the
// assembly calls this once, before any client is made.
func LogClientsTo(log *slog.Logger) { redis.SetLogger(clientLog{log}) }

// clientLog is the library's idea of a logger.
type clientLog struct{ log *slog.Logger }

// Printf implements the library's interface.
func (c clientLog) Printf(ctx context.Context, format string, v ...any) {
	c.log.DebugContext(ctx, "redis client", "text", fmt.Sprintf(format, v...))
}
