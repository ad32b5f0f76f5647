package tunnel

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// The fields of the PROXY v2 header between the sites, of the range for own use
// (PROXY protocol, section 2.2.7).
const (
	tlvService proxyproto.PP2Type = 0xE0 // name of the service
	tlvOrigin  proxyproto.PP2Type = 0xE1 // site at which the client entered
	tlvHops    proxyproto.PP2Type = 0xE2 // one byte: how often it has been passed on
)

// maxHops is how often a client is passed between the sites.
const maxHops = 1

// maxHeaderBytes bounds the header between the sites.
const maxHeaderBytes = 16 + 1024

// The answers of the exit, one byte before anything else.
const (
	answerOK      = 'O' // the target is connected
	answerMoved   = 'M' // this site is not active
	answerUnknown = 'U' // no such service here
	answerTarget  = 'T' // the target does not answer
	answerRefused = 'R' // banned, looping or one too many
)

// passage is what the entry tells the exit.
type passage struct {
	service string
	origin  string
	hops    byte
	client  netip.AddrPort // where the client came from
	server  netip.AddrPort // what it connected to
}

// format is the header on the wire.
func (p *passage) format() ([]byte, error) {
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(p.client), net.TCPAddrFromAddrPort(p.server))
	if err := h.SetTLVs([]proxyproto.TLV{
		{Type: tlvService, Value: []byte(p.service)},
		{Type: tlvOrigin, Value: []byte(p.origin)},
		{Type: tlvHops, Value: []byte{p.hops}},
	}); err != nil {
		return nil, fmt.Errorf("make header: %w", err)
	}
	return h.Format()
}

// errHeader: what the other site sent is no header of ours.
var errHeader = errors.New("tunnel: no valid header")

// readPassage reads a header and not one byte more.
func readPassage(r io.Reader) (*passage, error) {
	raw := make([]byte, 16, 128)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, err
	}
	if !bytes.Equal(raw[:12], proxyproto.SIGV2) {
		return nil, errHeader
	}
	n := int(binary.BigEndian.Uint16(raw[14:]))
	if 16+n > maxHeaderBytes {
		return nil, fmt.Errorf("%w: %d bytes", errHeader, n)
	}
	raw = append(raw, make([]byte, n)...)
	if _, err := io.ReadFull(r, raw[16:]); err != nil {
		return nil, err
	}
	return parsePassage(raw)
}

// parsePassage reads a whole header.
func parsePassage(raw []byte) (*passage, error) {
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHeader, err)
	}
	src, dst, ok := h.TCPAddrs()
	if !ok || h.Command != proxyproto.PROXY {
		return nil, fmt.Errorf("%w: no TCP addresses", errHeader)
	}
	p := &passage{client: unmapped(src.AddrPort()), server: unmapped(dst.AddrPort())}
	tlvs, err := h.TLVs()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHeader, err)
	}
	hops := false
	for _, f := range tlvs {
		// A newer site may say more.
		if f.Type == tlvService {
			p.service = string(f.Value)
		}
		if f.Type == tlvOrigin {
			p.origin = string(f.Value)
		}
		if f.Type == tlvHops && len(f.Value) == 1 {
			p.hops, hops = f.Value[0], true
		}
	}
	if p.service == "" || !hops || !p.client.IsValid() {
		return nil, fmt.Errorf("%w: a field is missing", errHeader)
	}
	return p, nil
}

// targetHeader tells a target who the client is; empty where it does not want to know.
func (s *service) targetHeader(p *passage) ([]byte, error) {
	version := byte(2)
	switch s.ProxyProtocol {
	case ProxyNone:
		return nil, nil
	case ProxyV1:
		version = 1
	}
	h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(p.client), net.TCPAddrFromAddrPort(p.server))
	return h.Format()
}

// buffered is a client's connection whose first bytes have been read already.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

// Read implements net.Conn.
func (b *buffered) Read(p []byte) (int, error) {
	if b.r.Buffered() == 0 {
		return b.Conn.Read(p)
	}
	return b.r.Read(p)
}

// CloseWrite ends this side's half.
func (b *buffered) CloseWrite() error { return closeWrite(b.Conn) }

// closeWrite ends this side's half, where the connection can do that.
func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// looksForged says that a client's first bytes pretend to be a PROXY header.
func looksForged(first []byte) bool {
	return bytes.HasPrefix(first, proxyproto.SIGV1) || bytes.HasPrefix(first, proxyproto.SIGV2)
}

// mayBeForged says that more bytes could make a PROXY header of a client's first
// ones: it may come in pieces.
func mayBeForged(first []byte) bool {
	return bytes.HasPrefix(proxyproto.SIGV1, first) || bytes.HasPrefix(proxyproto.SIGV2, first)
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// addrPort is a TCP connection's address.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return unmapped(t.AddrPort())
	}
	return netip.AddrPort{}
}
