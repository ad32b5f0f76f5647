package relay

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deadAfter is how long bytes may stay unacknowledged, or probes of a silent
// connection unanswered, before the connection is given up: a host that lost
// power says nothing.
const deadAfter = time.Minute

// dialer is the network's own, with an eye on hosts that vanish.
func dialer(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadAfter / 2, Interval: deadAfter / 4, Count: 2},
		Control: func(network, _ string, c syscall.RawConn) error {
			if network == "unix" {
				return nil
			}
			var opt error
			err := c.Control(func(fd uintptr) {
				opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
			})
			if err != nil {
				return err
			}
			return opt
		},
	}
	return d.DialContext(ctx, network, address)
}
