package servers

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// KeyValue is a running Redis.
type KeyValue struct {
	*Server
	// Addr is host:port.
	Addr string
	// Client is connected with all rights.
	Client *redis.Client
}

// Redis starts an empty Redis that keeps nothing on disk by itself; settings are
// words of its command line ("--replicaof", "127.0.0.1", "6379").
func Redis(tb testing.TB, settings ...string) *KeyValue {
	tb.Helper()
	require.Command(tb, "redis-server")
	r := &KeyValue{Addr: lab.FreeAddr(tb)}
	host, port, err := net.SplitHostPort(r.Addr)
	if err != nil {
		tb.Fatal(err)
	}
	dir := lab.Dir(tb)
	socket := filepath.Join(dir, "socket")
	r.Server = newServer(tb, dir, find(tb, "redis-server"), append([]string{
		"--bind", host, "--port", port, "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "no",
		"--protected-mode", "no", "--repl-diskless-sync-delay", "0",
	}, settings...)...)
	r.Client = redis.NewClient(&redis.Options{Network: "unix", Addr: socket, MaxRetries: -1})
	tb.Cleanup(func() { _ = r.Client.Close() })
	r.ready = func() error {
		// Asked before the client, whose pool writes every failure to dial to stderr.
		c, err := (&net.Dialer{}).DialContext(tb.Context(), "unix", socket)
		if err != nil {
			return err
		}
		_ = c.Close()
		return r.Client.Ping(tb.Context()).Err()
	}
	r.Start()
	return r
}

// Do runs one command with all rights.
func (r *KeyValue) Do(words ...any) {
	r.tb.Helper()
	if err := r.Client.Do(r.tb.Context(), words...).Err(); err != nil {
		r.tb.Fatalf("%v: %v", words, err)
	}
}
