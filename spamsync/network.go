package spamsync

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
)

// Network is the network of addr with so many bits for either family, as text;
// "unknown" for no address.
func Network(addr netip.Addr, bits4, bits6 int) string {
	addr = addr.Unmap().WithZone("")
	bits := bits6
	if addr.Is4() {
		bits = bits4
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return "unknown"
	}
	return p.String()
}

// digest is a short name for parts, of fixed length.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
