package bans

import (
	"net"
	"net/netip"
)

// Guard closes connections of banned clients before anybody sees them. It is for
// listeners whose connections come from the clients themselves.
func (l *List) Guard(inner net.Listener) net.Listener { return &guarded{inner, l} }

type guarded struct {
	net.Listener
	list *List
}

// Accept implements net.Listener.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a, ok := c.RemoteAddr().(*net.TCPAddr)
		if !ok {
			return c, nil
		}
		if from, _ := netip.AddrFromSlice(a.IP); !g.list.Banned(from) {
			return c, nil
		}
		if tc, ok := c.(*net.TCPConn); ok {
			_ = tc.SetLinger(0) // a reset costs this site nothing afterwards
		}
		_ = c.Close()
	}
}
