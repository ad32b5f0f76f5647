package wire_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync/wire"
)

// FuzzResponses lets a server say anything while every kind of command is in flight: no
// panic, no endless wait, no more memory than the limits allow.
func FuzzResponses(f *testing.F) {
	for _, s := range []string{
		"* 1 FETCH (UID 1 FLAGS (\\Seen) RFC822.SIZE 5 INTERNALDATE \"29-Feb-2024 00:00:00 +0000\" MODSEQ (7) X-GUID abc BODY[] {5}\r\nhello)\r\nu3 OK done\r\n",
		"* LIST (\\Noselect) \"/\" \"a&-b\" (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\n* STATUS {1}\r\na (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 3 HIGHESTMODSEQ 4 MAILBOXID (F1))\r\nu4 OK x\r\n",
		"* NAMESPACE ((\"\" \"/\")) NIL ((\"Shared/\" \"/\" \"X\" (\"y\")))\r\nu5 OK [COPYUID 1 1:2 4:5] done\r\n",
		"* ESEARCH (TAG \"u6\") UID ALL 1:3,9 MODSEQ 9\r\n* SEARCH 1 2 3 (MODSEQ 9)\r\nu6 NO [MODIFIED 3:4,9] x\r\n",
		"* VANISHED (EARLIER) 1:4294967295,3\r\n* OK [CLOSED] x\r\n* OK [PERMANENTFLAGS (\\Seen \\*)] y\r\n+ go\r\n",
		"* QUOTA \"r\" (STORAGE 1 2)\r\n* MYRIGHTS a lrs\r\n* BYE x\r\n* ENABLED\r\n* ID (\"name\" NIL)\r\n* 5 EXPUNGE\r\n",
		"u7 OK [APPENDUID 1 1:4294967295] x\r\n* X {3}\r\nabc\r\nu8 BAD\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		server, client := net.Pipe()
		go func() {
			defer func() { _ = server.Close() }()
			go func() { _, _ = io.Copy(io.Discard, server) }()
			_ = server.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.WriteString(server, "* PREAUTH [CAPABILITY "+modern+" ACL QUOTA OBJECTID] hi\r\nu1 OK\r\nu2 OK\r\n"+said)
		}()
		conf := wire.Config{Address: "imap://127.0.0.1", Limits: wire.Limits{LineBytes: 64 << 10, MessageBytes: 1 << 20, Ranges: 1000}}
		c, err := wire.Open(t.Context(), client, conf)
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		ctx := t.Context()
		all := imap.UIDSet{{Start: 1}}
		eat := func(m *wire.Message) error {
			if m.Body != nil {
				if n, err := io.Copy(io.Discard, m.Body); err == nil && n != m.BodySize {
					t.Errorf("%d bytes of a body of %d", n, m.BodySize)
				}
			}
			return nil
		}
		sel := c.Select("INBOX", wire.SelectOptions{})
		fetched := c.Fetch(all, wire.Items{Body: true, Flags: true, GUID: true, Header: []string{"Date"}}, eat)
		listed, moved := c.List("*"), c.Move(imap.UIDSetNum(1, 2), "x")
		found, stored := c.Search(wire.ByUID(all)), c.Store(all, wire.AddFlags, []imap.Flag{"x"}, 9)
		rights, quota, spaces := c.MyRights("x"), c.QuotaRoot("x"), c.Namespaces()
		_, _ = sel.Wait(ctx)
		_, _ = fetched.Wait(ctx)
		_, _ = listed.Wait(ctx)
		_, _ = moved.Wait(ctx)
		if set, err := found.Wait(ctx); err == nil && len(set) > 1001 {
			t.Errorf("%d ranges", len(set))
		}
		_, _ = stored.Wait(ctx)
		_, _ = rights.Wait(ctx)
		_, _ = quota.Wait(ctx)
		_, _ = spaces.Wait(ctx)
	})
}

func FuzzMailboxNames(f *testing.F) {
	for _, s := range []string{"INBOX", "Entw&APw-rfe", "&-", "&ZeVnLIqe-", "&AAAA", "a&b", "日本語", "\xff", "&2D3eCg-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if utf8.ValidString(s) {
			raw := wire.EncodeMailbox(s)
			if strings.ContainsFunc(raw, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
				t.Errorf("%q is encoded as %q", s, raw)
			}
			if back, ok := wire.DecodeMailbox(raw); !ok || back != s {
				t.Errorf("%q becomes %q and comes back as %q", s, raw, back)
			}
		}
		if name, ok := wire.DecodeMailbox(s); ok && name != s {
			if again := wire.EncodeMailbox(name); again != s {
				t.Errorf("%q and %q are both %q", s, again, name)
			}
		}
	})
}
