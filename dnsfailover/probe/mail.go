package probe

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"time"
)

// mailField marks the probe's messages; its value is the try's own.
const mailField = "X-Understudy-Probe"

// arrival is how long to wait between two looks for the message.
const arrival = 100 * time.Millisecond

// mailProbe delivers a message and reads it again. Earlier messages of its own
// are removed, one by one; nothing else is.
type mailProbe struct{ c Config }

func (p *mailProbe) try(ctx context.Context) error {
	var raw [12]byte
	_, _ = rand.Read(raw[:]) // never fails
	mark := hex.EncodeToString(raw[:])
	if err := p.deliver(ctx, mark); err != nil {
		return err
	}
	s, err := login(ctx, p.c)
	if err != nil {
		return err
	}
	defer s.close()
	if _, err := s.do("SELECT", "SELECT %s", quote(p.c.Mailbox)); err != nil {
		return err
	}
	uid, err := p.find(ctx, s, mark)
	if err != nil {
		return err
	}
	lines, err := s.do("FETCH", "UID FETCH %s (BODY.PEEK[])", uid)
	if err != nil {
		return err
	}
	if !strings.Contains(strings.Join(lines, "\n"), mailField+": "+mark) {
		return at("FETCH", errors.New("the message read is not the one delivered"))
	}
	return p.tidy(s, uid)
}

// deliver sends the message by LMTP (RFC 2033).
func (p *mailProbe) deliver(ctx context.Context, mark string) error {
	c, err := dial(ctx, p.c.LMTP)
	if err != nil {
		return at("LMTP", err)
	}
	defer c.close()
	err = c.greet("LHLO")
	if err == nil {
		err = c.envelope(p.c.Recipient)
	}
	if err == nil {
		err = c.command("DATA", 3, "DATA")
	}
	if err == nil {
		now := time.Now().UTC().Format(time.RFC1123Z)
		err = c.command("delivery", 2, "From: understudy <%[1]s>\r\nTo: <%[1]s>\r\nSubject: understudy probe\r\nDate: %[2]s\r\nMessage-ID: <%[3]s@probe.understudy>\r\n"+
			"%[4]s: %[3]s\r\nAuto-Submitted: auto-generated\r\n\r\nThis message shows that mail is delivered and can be read.\r\n.",
			p.c.Recipient, now, mark, mailField)
	}
	if err == nil {
		err = c.command("QUIT", 2, "QUIT")
	}
	return at("LMTP", err)
}

// find waits until the message is in the mailbox.
func (p *mailProbe) find(ctx context.Context, s *session, mark string) (string, error) {
	tick := time.NewTicker(arrival)
	defer tick.Stop()
	for {
		uids, err := s.search(mailField, mark, "")
		if err != nil {
			return "", err
		}
		if len(uids) > 0 {
			return uids[0], nil
		}
		select {
		case <-ctx.Done():
			return "", at("the delivered message is not in "+p.c.Mailbox, ctx.Err())
		case <-tick.C:
		}
		if _, err := s.do("NOOP", "NOOP"); err != nil {
			return "", err
		}
	}
}

// tidy removes the probe's messages, if the server can remove single ones (RFC
// 4315): a plain EXPUNGE would take what others have marked.
func (p *mailProbe) tidy(s *session, uid string) error {
	single, err := s.can("UIDPLUS")
	if err != nil || !single {
		return err
	}
	// What was left behind by tries that failed; not what another site is trying now.
	old, err := s.search(mailField, "", " BEFORE "+time.Now().Add(-24*time.Hour).UTC().Format("02-Jan-2006"))
	if err != nil {
		return err
	}
	set := strings.Join(append(old, uid), ",")
	if _, err := s.do("STORE", `UID STORE %s +FLAGS.SILENT (\Deleted)`, set); err != nil {
		return err
	}
	if _, err := s.do("EXPUNGE", "UID EXPUNGE %s", set); err != nil {
		return err
	}
	_, err = s.do("LOGOUT", "LOGOUT")
	return err
}
