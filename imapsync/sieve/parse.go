package sieve

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ending is OK, NO or BYE with its text (section 1.2).
type ending struct{ word, text string }

// as is nil for OK.
func (e *ending) as(command string) error {
	switch e.word {
	case "OK":
		return nil
	case "NO":
		return &RefusalError{Command: command, Text: e.text}
	default:
		return fmt.Errorf("%s: the server ends the session: %s", command, e.text)
	}
}

// response reads one line: a string with what follows it, or the end of an answer.
func (c *Client) response() (rest, text string, end *ending, err error) {
	b, err := c.r.ReadByte()
	if err != nil {
		return "", "", nil, err
	}
	if err := c.r.UnreadByte(); err != nil {
		return "", "", nil, err
	}
	if b == '"' || b == '{' {
		if text, err = c.text(); err != nil {
			return "", "", nil, err
		}
		rest, err = c.rest()
		return rest, text, nil, err
	}
	word, err := c.atom()
	if err != nil {
		return "", "", nil, err
	}
	word = strings.ToUpper(word)
	if word != "OK" && word != "NO" && word != "BYE" {
		return "", "", nil, fmt.Errorf("%w: %.40q", ErrProtocol, word)
	}
	text, err = c.rest()
	return "", "", &ending{word: word, text: text}, err
}

// atom reads up to a space or the end of the line, which stays.
func (c *Client) atom() (string, error) {
	var b strings.Builder
	for b.Len() < 100 {
		ch, err := c.r.ReadByte()
		if err != nil {
			return "", err
		}
		if ch == ' ' || ch == '\r' {
			return b.String(), c.r.UnreadByte()
		}
		b.WriteByte(ch)
	}
	return "", fmt.Errorf("%w: %.40q", ErrProtocol, b.String())
}

// rest reads the remainder of a line: words, strings and response codes, joined.
func (c *Client) rest() (string, error) {
	var words []string
	size := 0
	for {
		ch, err := c.r.ReadByte()
		if err != nil {
			return "", err
		}
		switch ch {
		case ' ', '(', ')':
			continue
		case '\r':
			if ch, err = c.r.ReadByte(); err != nil {
				return "", err
			}
			if ch != '\n' {
				return "", fmt.Errorf("%w: a bare CR", ErrProtocol)
			}
			return strings.Join(words, " "), nil
		}
		if err := c.r.UnreadByte(); err != nil {
			return "", err
		}
		var word string
		if ch == '"' || ch == '{' {
			word, err = c.text()
		} else {
			word, err = c.word()
		}
		if err != nil {
			return "", err
		}
		if size += len(word) + 1; size > 2*maxLine {
			return "", fmt.Errorf("%w: a line without end", ErrProtocol)
		}
		words = append(words, word)
	}
}

func (c *Client) word() (string, error) {
	var b strings.Builder
	for b.Len() < maxLine {
		ch, err := c.r.ReadByte()
		if err != nil {
			return "", err
		}
		if strings.ContainsRune(" \r()\"", rune(ch)) {
			return b.String(), c.r.UnreadByte()
		}
		b.WriteByte(ch)
	}
	return "", fmt.Errorf("%w: a word without end", ErrProtocol)
}

// text reads a quoted string or a literal (section 4).
func (c *Client) text() (string, error) {
	first, err := c.r.ReadByte()
	if err != nil {
		return "", err
	}
	if first == '{' {
		return c.literal()
	}
	var b strings.Builder
	for b.Len() < maxLine {
		ch, err := c.r.ReadByte()
		if err != nil {
			return "", err
		}
		switch ch {
		case '"':
			return b.String(), nil
		case '\\':
			if ch, err = c.r.ReadByte(); err != nil {
				return "", err
			}
		case '\r', '\n', 0:
			return "", fmt.Errorf("%w: a quoted string that does not end", ErrProtocol)
		}
		b.WriteByte(ch)
	}
	return "", fmt.Errorf("%w: a quoted string without end", ErrProtocol)
}

func (c *Client) literal() (string, error) {
	head, err := c.r.ReadSlice('\n')
	if err != nil {
		return "", fmt.Errorf("%w: literal: %w", ErrProtocol, err)
	}
	digits := strings.TrimSuffix(strings.TrimSuffix(string(head), "\r\n"), "}")
	n, err := strconv.ParseUint(strings.TrimSuffix(digits, "+"), 10, 32)
	if err != nil || n > MaxScript {
		return "", errors.Join(fmt.Errorf("%w: literal of %.20q bytes, at most %d", ErrProtocol, digits, MaxScript), err)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(c.r, buf); err != nil {
		return "", err
	}
	return string(buf), nil
}

// quote writes a string of our own; names are checked before (checkName).
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// checkName refuses what a script's name cannot be (section 1.6), and what would
// end a line.
func checkName(name string) error {
	if name == "" || len(name) > 512 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x2028 || r == 0x2029 }) {
		return fmt.Errorf("script name %.40q is not possible", name)
	}
	return nil
}
