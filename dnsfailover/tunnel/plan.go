package tunnel

import (
	"strings"
	"time"

	"understudy/dnsfailover"
)

// Way is where a client's connection goes.
type Way uint8

// The ways. The zero value is Refuse.
const (
	// Refuse: reset the client at once.
	Refuse Way = iota
	// Local: to this site's target.
	Local
	// Across: over the peer link, to the other site's target.
	Across
)

// String is the way's name in logs, metrics and JSON.
func (w Way) String() string {
	switch w {
	case Local:
		return "local"
	case Across:
		return "across"
	case Refuse:
		return "refuse"
	default:
		return "unknown"
	}
}

// Decide says where a new connection goes.
//
//	view                                    when_fenced local   when_fenced refuse
//	active, permit valid                    Local               Local
//	standby, link up                        Across              Across
//	standby, link down                      Local               Refuse
//	fenced, or active with a lapsed permit  Local               Refuse
func Decide(v dnsfailover.View, now time.Time, linkUp bool, whenFenced string) Way {
	switch {
	case IsActive(v, now):
		return Local
	case v.Role == dnsfailover.Standby && linkUp:
		return Across
	case whenFenced == FencedLocal:
		return Local
	default:
		return Refuse
	}
}

// IsActive says whether the site may serve as the active one at this moment.
func IsActive(v dnsfailover.View, now time.Time) bool {
	return v.Role == dnsfailover.Active && (v.Until.IsZero() || now.Before(v.Until))
}

// protocolOf is what a service speaks in plain text. TLS from the first byte is raw.
func protocolOf(name, configured string) string {
	if configured != ProtocolAuto && configured != "" {
		return configured
	}
	switch name {
	case "imap":
		return ProtocolIMAP
	case "pop3":
		return ProtocolPOP3
	case "submission":
		return ProtocolSMTP
	case "sieve", "managesieve":
		return ProtocolSieve
	}
	return ProtocolRaw
}

// whenFencedOf resolves auto: mail is merged afterwards (mailboxes by the syncer,
// submission by its queue), a database is not.
func whenFencedOf(name, configured string) string {
	if configured != FencedAuto && configured != "" {
		return configured
	}
	for _, mail := range []string{"imap", "pop3", "submission", "sieve", "managesieve"} {
		if name == mail || name == mail+"s" || strings.HasPrefix(name, mail+"-") {
			return FencedLocal
		}
	}
	return FencedRefuse
}

// farewell is how a server of the protocol says that it goes away; empty where a
// connection is simply closed.
func farewell(protocol string) string {
	switch protocol {
	case ProtocolIMAP: // RFC 9051, section 7.1.5
		return "* BYE This server is going away, please connect again\r\n"
	case ProtocolSMTP: // RFC 5321, section 3.8
		return "421 4.3.2 This server is going away, please connect again\r\n"
	case ProtocolSieve: // RFC 5804, section 1.2
		return "BYE \"This server is going away, please connect again\"\r\n"
	}
	return ""
}
