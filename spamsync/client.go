package spamsync

import (
	"fmt"
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
