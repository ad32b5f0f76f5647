package smtp

import (
	"net/netip"
	"strings"
	"time"
)

// Envelope is all that is known of a message besides its bytes. It is written
// once, with the message, and never changed afterwards: what happens to the
// message later (attempts, results, holds) is state of the queue.
type Envelope struct {
	// ID is the queue id: time-ordered, unique at this site.
	ID string `json:"id"`
	// Received is when the message was accepted, by this site's clock.
	Received time.Time `json:"received"`
	// Client is who gave it to us.
	Client Client `json:"client"`
	// Sender is the reverse-path as it came, without angle brackets; empty is
	// the null sender (RFC 5321, section 4.5.5).
	Sender string `json:"sender"`
	// Recipients are the forward-paths that were answered 250, in order. Results
	// refer to them by index.
	Recipients []Recipient `json:"recipients"`
	// Body is the BODY parameter: "", "7BIT", "8BITMIME" or "BINARYMIME"
	// (RFC 6152, RFC 3030).
	Body string `json:"body,omitempty"`
	// SMTPUTF8 says that the envelope or header needs RFC 6531.
	SMTPUTF8 bool `json:"smtputf8,omitempty"`
	// RequireTLS is RFC 8689's REQUIRETLS.
	RequireTLS bool `json:"requiretls,omitempty"`
	// Return is DSN's RET: "", "FULL" or "HDRS" (RFC 3461, section 4.3).
	Return string `json:"ret,omitempty"`
	// EnvelopeID is DSN's ENVID, still in xtext (RFC 3461, section 4.4).
	EnvelopeID string `json:"envid,omitempty"`
	// Route is the next hop this message goes to from the start, as a URL; empty is
	// where the view points. Notifications use it; mail from outside never does.
	Route string `json:"route,omitempty"`
	// SizeBytes is the length of the stored message, our trace header included.
	SizeBytes int64 `json:"size"`
	// Verdict is what the filter said; nil where none was asked.
	Verdict *Verdict `json:"verdict,omitempty"`
}

// Client is one SMTP client as the session saw it.
type Client struct {
	// Addr is the client's address, after PROXY or XCLIENT from a listed network.
	Addr netip.AddrPort `json:"addr"`
	// HELO is the name it gave.
	HELO string `json:"helo,omitempty"`
	// ReverseName is the PTR name if that name resolves back to Addr; else empty.
	ReverseName string `json:"rdns,omitempty"`
	// Protocol is the "with" keyword of the trace header: SMTP, ESMTP, ESMTPS,
	// UTF8SMTP ... (RFC 3848, RFC 6531).
	Protocol string `json:"proto,omitempty"`
	// TLS describes the connection's protection, for example
	// "TLS1.3 TLS_AES_128_GCM_SHA256"; empty is plain text.
	TLS string `json:"tls,omitempty"`
	// User is the authenticated user, where a front proxy passed one on.
	User string `json:"user,omitempty"`
	// Peer says that the client is the other understudy.
	Peer bool `json:"peer,omitempty"`
}

// Recipient is one forward-path with its DSN parameters.
type Recipient struct {
	// Address is the forward-path as it came, without angle brackets.
	Address string `json:"addr"`
	// ORCPT is the original recipient parameter, "type;xtext" (RFC 3461, 4.2).
	ORCPT string `json:"orcpt,omitempty"`
	// Notify lists NEVER, SUCCESS, FAILURE, DELAY (RFC 3461, section 4.1).
	Notify []string `json:"notify,omitempty"`
}

// Domain returns the part of addr behind the last @, in lower case; empty where
// there is none.
func Domain(addr string) string {
	i := strings.LastIndexByte(addr, '@')
	if i < 0 {
		return ""
	}
	return strings.ToLower(addr[i+1:])
}
