package auth

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

// CacheConfig bounds a Cache.
type CacheConfig struct {
	Entries  int           `key:"entries" default:"20000" doc:"Answers kept; beyond, the oldest half goes."`
	TTL      time.Duration `key:"ttl" default:"5m" doc:"How long an answer is kept."`
	Negative time.Duration `key:"negative" default:"1m" doc:"How long it is kept that a name has no answer."`
	Timeout  time.Duration `key:"timeout" default:"5s" doc:"Longest time one DNS question takes."`
}

// Validate reports all faults at once.
func (c CacheConfig) Validate() error {
	var errs []error
	if c.Entries < 1 {
		errs = append(errs, errors.New("entries: must be at least 1"))
	}
	if c.TTL < 0 || c.Negative < 0 {
		errs = append(errs, errors.New("ttl, negative: must not be negative"))
	}
	if c.Timeout <= 0 {
		errs = append(errs, errors.New("timeout: must be positive"))
	}
	return errors.Join(errs...)
}

// Cache is a Resolver that asks another one and keeps the answers, also that
// there is none; never a failure to answer. Every question is bounded in time.
// Its methods may be called concurrently; callers must not change the answers.
type Cache struct {
	next   Resolver
	config CacheConfig

	mu sync.Mutex
	// Two generations: when young is full it becomes old, and old is forgotten.
	young, old map[string]cached
}

type cached struct {
	value   any
	err     error
	expires time.Time
}

var _ Resolver = (*Cache)(nil)

// NewCache returns a cache in front of next.
func NewCache(next Resolver, config CacheConfig) *Cache {
	return &Cache{next: next, config: config, young: make(map[string]cached)}
}

// LookupTXT implements Resolver.
func (c *Cache) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return lookup(ctx, c, "txt ", name, c.next.LookupTXT)
}

// LookupMX implements Resolver.
func (c *Cache) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return lookup(ctx, c, "mx ", name, c.next.LookupMX)
}

// LookupIPAddr implements Resolver.
func (c *Cache) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	return lookup(ctx, c, "ip ", host, c.next.LookupIPAddr)
}

// LookupAddr implements Resolver.
func (c *Cache) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return lookup(ctx, c, "ptr ", addr, c.next.LookupAddr)
}

func lookup[T any](ctx context.Context, c *Cache, kind, name string, ask func(context.Context, string) (T, error)) (T, error) {
	key := kind + strings.TrimSuffix(strings.ToLower(name), ".")
	if e, ok := c.get(key); ok {
		value, _ := e.value.(T)
		return value, e.err
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	value, err := ask(ctx, name)
	var dns *net.DNSError
	switch {
	case err == nil:
		c.put(key, cached{value: value, expires: time.Now().Add(c.config.TTL)})
	case errors.As(err, &dns) && dns.IsNotFound && ctx.Err() == nil:
		c.put(key, cached{value: value, err: err, expires: time.Now().Add(c.config.Negative)})
	}
	return value, err
}

func (c *Cache) get(key string) (cached, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.young[key]
	if !ok {
		e, ok = c.old[key]
	}
	if !ok || !time.Now().Before(e.expires) {
		return cached{}, false
	}
	return e, true
}

func (c *Cache) put(key string, e cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.young) >= max(c.config.Entries/2, 1) {
		c.young, c.old = make(map[string]cached), c.young
	}
	c.young[key] = e
}
