//go:build !linux

package relay

import (
	"context"
	"net"
	"time"
)

// dialer is the network's own, with an eye on hosts that vanish.
func dialer(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 2}}
	return d.DialContext(ctx, network, address)
}
