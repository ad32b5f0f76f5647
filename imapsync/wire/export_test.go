package wire

import (
	"context"
	"net"
)

// Open is Dial on a connection that is there already.
func Open(ctx context.Context, conn net.Conn, cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	end, err := cfg.endpoint()
	if err != nil {
		return nil, err
	}
	return open(ctx, conn, cfg, end, Login{})
}
