package mailpair

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"time"
)

// Mail is a message to be stored.
type Mail struct {
	ID    string
	Body  []byte
	Date  time.Time
	Flags string // as IMAP writes them: `\Seen $Work`
}

// NewMail makes a message of about size bytes. The id makes it unlike all others.
func NewMail(rnd *rand.Rand, id string, size int) Mail {
	var b bytes.Buffer
	date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rnd.IntN(300*24*3600)) * time.Second)
	fmt.Fprintf(&b, "%s%s\r\nMessage-ID: <%s@lab.test>\r\nDate: %s\r\nFrom: Eva <eva@lab.test>\r\nTo: adam@lab.test\r\nSubject: message %s\r\n\r\n",
		idLine, id, id, date.Format(time.RFC1123Z), id)
	line := make([]byte, 72)
	for b.Len() < size {
		for i := range line {
			line[i] = byte('!' + rnd.IntN(90))
		}
		b.Write(line[:min(len(line), max(1, size-b.Len()-2))])
		b.WriteString("\r\n")
	}
	flags := []string{"", `\Seen`, `\Seen \Answered`, `\Flagged`, `\Seen $Work`, "Later"}[rnd.IntN(6)]
	return Mail{ID: id, Body: b.Bytes(), Date: date, Flags: flags}
}

// Corpus makes n messages with sizes as mail has them: log-normal around 8 KiB, one
// in 200 about 1 MiB.
func Corpus(rnd *rand.Rand, prefix string, n int) []Mail {
	out := make([]Mail, n)
	for i := range out {
		size := int(math.Exp(math.Log(8<<10) + 0.8*rnd.NormFloat64()))
		if i%200 == 199 {
			size = 1 << 20
		}
		out[i] = NewMail(rnd, fmt.Sprintf("%s%d", prefix, i), size)
	}
	return out
}

// Raw is a connection on which commands are written by hand.
type Raw struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	tag  int
}

// DialRaw logs a user in.
func DialRaw(ctx context.Context, addr, user string) (*Raw, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Minute)); err != nil {
		return nil, err
	}
	r := &Raw{conn: conn, r: bufio.NewReaderSize(conn, 256<<10), w: bufio.NewWriterSize(conn, 256<<10)}
	if _, err := r.r.ReadString('\n'); err != nil {
		return nil, fmt.Errorf("greeting: %w", err)
	}
	if _, err := r.Do(`LOGIN "%s" "%s"`, user, Password); err != nil {
		return nil, err
	}
	return r, nil
}

// Close ends the connection.
func (r *Raw) Close() { _ = r.conn.Close() }

// Do runs one command and returns the untagged lines of its answer; literals in
// them are joined on. Anything but OK is an error.
func (r *Raw) Do(format string, args ...any) ([]string, error) {
	r.tag++
	command := fmt.Sprintf(format, args...)
	_, _ = fmt.Fprintf(r.w, "r%d %s\r\n", r.tag, command)
	if err := r.w.Flush(); err != nil {
		return nil, err
	}
	lines, err := r.answer()
	if err != nil {
		return nil, fmt.Errorf("%.60s: %w", command, err)
	}
	return lines, nil
}

func (r *Raw) answer() ([]string, error) {
	prefix := fmt.Sprintf("r%d ", r.tag)
	var lines []string
	for {
		line, err := r.r.ReadString('\n')
		if err != nil {
			return lines, err
		}
		line = strings.TrimRight(line, "\r\n")
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			if !strings.HasPrefix(rest, "OK") {
				return lines, fmt.Errorf("answered %q", rest)
			}
			return append(lines, rest), nil
		}
		lines = append(lines, line)
	}
}

// Append stores messages by MULTIAPPEND.
func (r *Raw) Append(folder string, mail []Mail) error {
	for len(mail) > 0 {
		n, size := 0, 0
		for n < len(mail) && n < 50 && size < 4<<20 {
			size += len(mail[n].Body)
			n++
		}
		r.tag++
		_, _ = fmt.Fprintf(r.w, `r%d APPEND "%s"`, r.tag, folder)
		for _, m := range mail[:n] {
			_, _ = fmt.Fprintf(r.w, " (%s) \"%s\" {%d+}\r\n", m.Flags, m.Date.Format("02-Jan-2006 15:04:05 -0700"), len(m.Body))
			if _, err := r.w.Write(m.Body); err != nil {
				return err
			}
		}
		_, _ = fmt.Fprintf(r.w, "\r\n")
		if err := r.w.Flush(); err != nil {
			return err
		}
		if _, err := r.answer(); err != nil {
			return fmt.Errorf("append to %s: %w", folder, err)
		}
		mail = mail[n:]
	}
	return nil
}

// Load makes a folder, subscribes it, and stores messages in it.
func Load(ctx context.Context, addr, user, folder string, mail []Mail) error {
	r, err := DialRaw(ctx, addr, user)
	if err != nil {
		return err
	}
	defer r.Close()
	if folder != "INBOX" {
		if _, err := r.Do(`CREATE "%s"`, folder); err != nil && !strings.Contains(err.Error(), "EXISTS") {
			return err
		}
	}
	if _, err := r.Do(`SUBSCRIBE "%s"`, folder); err != nil {
		return err
	}
	return r.Append(folder, mail)
}
