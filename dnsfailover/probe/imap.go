package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// imapProbe logs in and opens the mailbox.
type imapProbe struct{ c Config }

func (p imapProbe) try(ctx context.Context) error {
	s, err := login(ctx, p.c)
	if err != nil {
		return err
	}
	defer s.close()
	if _, err := s.do("SELECT", "EXAMINE %s", quote(p.c.Mailbox)); err != nil {
		return err
	}
	_, err = s.do("LOGOUT", "LOGOUT")
	return err
}

// session is an IMAP dialogue, just enough of it.
type session struct {
	*conn
	n int
}

func login(ctx context.Context, cfg Config) (*session, error) {
	secret, err := password(cfg)
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, cfg.Address)
	if err != nil {
		return nil, err
	}
	s := &session{conn: c}
	if err := s.open(ctx, cfg, secret); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) open(ctx context.Context, cfg Config, secret string) error {
	if cfg.TLS == "implicit" {
		if err := s.secure(ctx, cfg); err != nil {
			return err
		}
	}
	text, err := s.line()
	if err == nil && !strings.HasPrefix(text, "* OK") {
		err = fmt.Errorf("%.200s", text)
	}
	if err != nil {
		return at("greeting", err)
	}
	if cfg.TLS == "starttls" {
		if _, err := s.do("STARTTLS", "STARTTLS"); err != nil {
			return err
		}
		if err := s.secure(ctx, cfg); err != nil {
			return err
		}
	}
	_, err = s.do("LOGIN", "LOGIN %s %s", quote(cfg.User), quote(secret))
	return err
}

// quote makes a quoted string (RFC 3501, section 4.3).
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", "", "\n", "").Replace(text) + `"`
}

// do sends a command and returns the untagged lines before its OK; the text of a
// literal stands in its line.
func (s *session) do(step, format string, args ...any) ([]string, error) {
	s.n++
	tag := "p" + strconv.Itoa(s.n)
	if err := s.writeLine(tag+" "+format, args...); err != nil {
		return nil, at(step, err)
	}
	var out []string
	for {
		text, err := s.whole()
		if err != nil {
			return nil, at(step, err)
		}
		rest, tagged := strings.CutPrefix(text, tag+" ")
		switch {
		case !tagged:
			out = append(out, text)
		case strings.HasPrefix(rest, "OK"):
			return out, nil
		default:
			return nil, at(step, fmt.Errorf("%.200s", rest))
		}
	}
}

// whole reads a line with its literals.
func (s *session) whole() (string, error) {
	var b strings.Builder
	for {
		text, err := s.line()
		if err != nil {
			return "", err
		}
		b.WriteString(text)
		n := literalBytes(text)
		if n < 0 {
			return b.String(), nil
		}
		if _, err := io.CopyN(&b, s.in, n); err != nil {
			return "", errors.New("the server closed the connection")
		}
	}
}

// literalBytes is the length of the literal that a line announces at its end; -1
// where it announces none (RFC 3501, section 4.3).
func literalBytes(text string) int64 {
	i := strings.LastIndexByte(text, '{')
	if i < 0 || !strings.HasSuffix(text, "}") {
		return -1
	}
	n, err := strconv.ParseInt(text[i+1:len(text)-1], 10, 32)
	if err != nil {
		return -1
	}
	return n
}

// search returns the UIDs of the messages that carry the field with the text, and
// that more, another search key, narrows down.
func (s *session) search(field, text, more string) ([]string, error) {
	lines, err := s.do("SEARCH", "UID SEARCH HEADER %s %s%s", field, quote(text), more)
	if err != nil {
		return nil, err
	}
	var uids []string
	for _, l := range lines {
		if rest, ok := strings.CutPrefix(l, "* SEARCH"); ok {
			uids = append(uids, strings.Fields(rest)...)
		}
	}
	for _, u := range uids {
		if _, err := strconv.ParseUint(u, 10, 32); err != nil {
			return nil, at("SEARCH", fmt.Errorf("%.50q is no UID", u))
		}
	}
	return uids, nil
}

// can says whether the server has a capability.
func (s *session) can(name string) (bool, error) {
	lines, err := s.do("CAPABILITY", "CAPABILITY")
	if err != nil {
		return false, err
	}
	for _, l := range lines {
		if rest, ok := strings.CutPrefix(l, "* CAPABILITY "); ok && slices.Contains(strings.Fields(strings.ToUpper(rest)), name) {
			return true, nil
		}
	}
	return false, nil
}
