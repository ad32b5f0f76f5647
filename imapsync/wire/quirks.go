package wire

import (
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Quirks are the ways in which a server differs from what it announces.
type Quirks struct {
	// Name is the row of the table, for logs.
	Name string
	// Disable are capabilities that the server offers and must not be used.
	Disable []imap.Cap
	// GUID is the FETCH item that names a message for good where OBJECTID is not
	// offered; "" if there is none.
	GUID string
	// NoStatusID: MAILBOXID must not be asked of STATUS, only of SELECT.
	NoStatusID bool
	// Why says where the row comes from.
	Why string
}

// quirk is one row: all that is set must match.
type quirk struct {
	name     string   // in the server's ID, without case
	greeting string   // in the greeting, without case
	offers   imap.Cap // among the capabilities
	Quirks
}

// quirkTable lists the servers whose announcements are not the whole truth. The
// first row that matches counts. Config.Disable adds to it for what is not here.
func quirkTable() []quirk {
	return []quirk{
		{name: "dovecot", Quirks: Quirks{
			Name: "dovecot", GUID: "X-GUID",
			Why: "X-GUID is kept by COPY and MOVE and not announced; EMAILID is not offered by 2.3 (measured)",
		}},
		{greeting: "dovecot", Quirks: Quirks{
			Name: "dovecot", GUID: "X-GUID",
			Why: "the same where ID is switched off",
		}},
		{name: "cyrus", Quirks: Quirks{
			Name: "cyrus", NoStatusID: true,
			Why: "3.6.1 answers STATUS (MAILBOXID) with bytes of its own memory, SELECT rightly; it drops what follows " +
				"AUTHENTICATE in the same packet, so nothing is ever sent there; EMAILID is made of the content, so that " +
				"two equal messages share one; INTERNALDATE comes back in UTC (all measured)",
		}},
		{offers: "X-GM-EXT-1", Quirks: Quirks{
			Name: "gmail", Disable: []imap.Cap{imap.CapQResync},
			Why: "messages with several labels are one message; not tested, not promised",
		}},
		{offers: "XAPPLEPUSHSERVICE", Quirks: Quirks{
			Name: "icloud", Disable: []imap.Cap{imap.CapQResync},
			Why: "VANISHED is malformed (Mailspring-Sync, pull request 91); Dovecot builds with the push plugin only lose speed",
		}},
	}
}

func quirksOf(server ServerID, greeting string, caps imap.CapSet) Quirks {
	contains := func(s, part string) bool { return strings.Contains(strings.ToLower(s), part) }
	for _, row := range quirkTable() {
		if row.name != "" && !contains(server.Name, row.name) || row.greeting != "" && !contains(greeting, row.greeting) {
			continue
		}
		if _, ok := caps[row.offers]; row.offers != "" && !ok {
			continue
		}
		return row.Quirks
	}
	return Quirks{}
}

// Quirks is the row of the table that matched this server.
func (c *Client) Quirks() Quirks { return c.quirks }

// GUID is the FETCH item that names a message for good: EMAILID (RFC 8474, section 5.1),
// a server's own, or "".
func (c *Client) GUID() string {
	if c.Has(imap.CapObjectID) {
		return "EMAILID"
	}
	return c.quirks.GUID
}
