package parity

import (
	"fmt"
	"net/netip"
	"strings"

	"understudy/spamsync/corpus"
	"understudy/spamsync/mailfiles"
)

// Message is what both sites judge.
type Message struct {
	Name        string
	Client      netip.Addr
	HELO        string
	ReverseName string
	Sender      string
	Recipient   string
	Raw         []byte
}

// Generated returns n messages of both classes that nobody ever sent; the same
// seed gives the same messages.
func Generated(seed uint64, n int) []Message {
	out := make([]Message, 0, n)
	for _, s := range corpus.Generate(seed, n) {
		out = append(out, Message{
			Name: s.Name, Client: s.Addr, HELO: s.HELO, ReverseName: s.ReverseName,
			Sender: s.Sender, Recipient: s.Recipient, Raw: s.Message,
		})
	}
	return out
}

// maxMessageBytes bounds one message that is read from files.
const maxMessageBytes = 4 << 20

// Files returns at most n messages (0: 10000) found at path by mailfiles.Walk,
// those that are too long left out. Their envelope is made up, the same for all.
func Files(path string, n int) ([]Message, error) {
	if n <= 0 {
		n = 10_000
	}
	var out []Message
	err := mailfiles.Walk(path, maxMessageBytes, func(m mailfiles.Mail) error {
		if m.Cut || len(m.Raw) == 0 || len(out) >= n {
			return nil
		}
		out = append(out, Message{
			Name: strings.TrimPrefix(strings.TrimPrefix(m.Name, path), "/"), Client: netip.MustParseAddr("192.0.2.1"), HELO: "mail.example.org",
			Sender: "parity@example.org", Recipient: "parity@example.com", Raw: m.Raw,
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no messages in %s", path)
	}
	return out, nil
}
