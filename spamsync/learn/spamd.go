package learn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"understudy/spamsync"
	"understudy/spamsync/engine/link"
)

// SpamdTeacher teaches SpamAssassin with spamd's TELL; spamd must run with
// --allow-tell.
type SpamdTeacher struct {
	address, user string
}

var _ Teacher = (*SpamdTeacher)(nil)

// NewSpamd returns a teacher for spamd at address, host:port or /path; user may be
// empty. It dials nothing.
func NewSpamd(address, user string) (*SpamdTeacher, error) {
	if _, _, err := link.Parse(address); err != nil {
		return nil, err
	}
	if strings.ContainsAny(user, "\r\n") {
		return nil, errors.New("user holds a line break")
	}
	return &SpamdTeacher{address: address, user: user}, nil
}

// Teach implements Teacher.
func (t *SpamdTeacher) Teach(ctx context.Context, class spamsync.Class, _ string, message []byte) (Outcome, error) {
	conn, err := link.Dial(ctx, t.address, maxAnswerBytes)
	if err != nil {
		return 0, away(err)
	}
	defer func() { _ = conn.Close() }()
	head := "TELL SPAMC/1.5\r\nContent-length: " + strconv.Itoa(len(message)) +
		"\r\nMessage-class: " + class.String() + "\r\nSet: local\r\n"
	if t.user != "" {
		head += "User: " + t.user + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return 0, away(err)
	}
	if _, err := conn.Write(message); err != nil {
		return 0, away(err)
	}
	// Spamd reads lines: without this it waits for the rest of a last line that has no
	// end.
	if half, ok := conn.Conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return 0, away(err)
		}
	}
	return spamdAnswer(bufio.NewReader(conn))
}

// spamdAnswer reads "SPAMD/1.1 0 EX_OK" and the fields after it; DidSet says that
// the message was new.
func spamdAnswer(r *bufio.Reader) (Outcome, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, away(fmt.Errorf("read answer: %w", err))
	}
	parts := strings.Fields(line)
	if len(parts) < 2 || !strings.HasPrefix(parts[0], "SPAMD/") {
		return 0, away(errors.New("not spamd: " + link.Text(line, 80)))
	}
	const (
		exOK          = "0"
		exUnavailable = "69" // TELL is not allowed (sysexits.h)
		exTempFail    = "75"
	)
	switch parts[1] {
	case exOK:
	case exUnavailable, exTempFail:
		return 0, away(errors.New("spamd answers " + link.Text(line, 80)))
	default:
		return 0, errors.New("spamd answers " + link.Text(line, 80))
	}
	out := Known
	for {
		line, err := r.ReadString('\n')
		if strings.HasPrefix(strings.ToLower(line), "didset:") {
			out = Learned
		}
		// Spamd has learned it: what comes after that does not matter.
		if err != nil || strings.TrimSpace(line) == "" {
			return out, nil //nolint:nilerr // see above
		}
	}
}
