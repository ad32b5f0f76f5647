package spamsync

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisConfig is the section spam.redis: where the shared state is.
type RedisConfig struct {
	Address      string        `key:"address" doc:"Redis of this site, host:port: all reads. Empty keeps the spam state in memory, of this site alone and until the next restart."`
	Peer         string        `key:"peer" doc:"Redis of the other site, host:port, as this site reaches it."`
	WriteListen  string        `key:"write_listen" doc:"Where this daemon offers the write endpoint that leads to the site whose Redis takes writes, host:port on loopback. Filters write here."`
	WriteAddress string        `key:"write_address" doc:"Where the builtin filter writes, host:port; empty is write_listen, or address without one."`
	Username     string        `key:"username" doc:"User of Redis 6 and later; empty is the default user."`
	PasswordFile string        `key:"password_file" secret:"true" doc:"File that holds the password, one line."`
	DB           int           `key:"db" default:"0" doc:"Number of the database."`
	Timeout      time.Duration `key:"timeout" default:"500ms" doc:"Longest time a question to Redis takes, connecting included; after it Redis counts as away."`
	TokenTTL     time.Duration `key:"token_ttl" default:"2400h" doc:"How long a learned token is kept after it was learned last."`
}

// DefaultRedisConfig returns the defaults that the tags name.
func DefaultRedisConfig() RedisConfig {
	return RedisConfig{Timeout: 500 * time.Millisecond, TokenTTL: 2400 * time.Hour}
}

// Validate reports all faults at once, each with its key.
func (c RedisConfig) Validate() error {
	var errs []error
	for _, a := range []struct{ key, value string }{
		{"address", c.Address}, {"peer", c.Peer}, {"write_listen", c.WriteListen}, {"write_address", c.WriteAddress},
	} {
		if a.value == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not host:port", a.key, a.value))
		}
	}
	if c.Address == "" && (c.Peer != "" || c.WriteListen != "" || c.WriteAddress != "") {
		errs = append(errs, errors.New("address: is missing; peer, write_listen and write_address need it"))
	}
	if c.Timeout <= 0 {
		errs = append(errs, errors.New("timeout: must be positive"))
	}
	if c.TokenTTL < 24*time.Hour {
		errs = append(errs, errors.New("token_ttl: must be at least 24h"))
	}
	if c.DB < 0 {
		errs = append(errs, errors.New("db: must not be negative"))
	}
	return errors.Join(errs...)
}

// WritesTo is the address that takes writes.
func (c RedisConfig) WritesTo() string {
	switch {
	case c.WriteAddress != "":
		return c.WriteAddress
	case c.WriteListen != "":
		return c.WriteListen
	}
	return c.Address
}

// OpenRedis returns a state over the configured servers and what closes it. It
// reads the password file, and does not dial.
func OpenRedis(c RedisConfig) (*Redis, func() error, error) {
	if err := c.Validate(); err != nil {
		return nil, nil, err
	}
	if c.Address == "" {
		return nil, nil, errors.New("address: is missing")
	}
	password := ""
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, nil, fmt.Errorf("password_file: %w", err)
		}
		password, _, _ = strings.Cut(string(text), "\n")
		password = strings.TrimRight(password, "\r")
	}
	open := func(address string) redis.UniversalClient {
		return redis.NewUniversalClient(&redis.UniversalOptions{
			Addrs: []string{address}, DB: c.DB, Username: c.Username, Password: password,
			// One attempt: who asks has something better to do than to wait.
			MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
			DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, PoolTimeout: c.Timeout,
		})
	}
	read := open(c.Address)
	write := read
	closeAll := read.Close
	if c.WritesTo() != c.Address {
		write = open(c.WritesTo())
		closeAll = func() error { return errors.Join(write.Close(), read.Close()) }
	}
	return NewRedis(read, write, c.Timeout, c.TokenTTL), closeAll, nil
}
