package mailpair

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

var fetched = regexp.MustCompile(`FLAGS \(([^)]*)\) INTERNALDATE ("[^"]*") BODY\[\] \{([0-9]+)\}`)

// Floor copies folders as fast as IMAP allows, with no state and no check: one FETCH
// of everything a folder, written into MULTIAPPENDs of 50 without waiting. It is what
// a synchroniser is measured against.
func Floor(ctx context.Context, from, to, user string, folders []string) error {
	src, err := DialRaw(ctx, from, user)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := DialRaw(ctx, to, user)
	if err != nil {
		return err
	}
	defer dst.Close()
	for i, f := range folders {
		_, _ = fmt.Fprintf(src.w, "s%d SELECT \"%s\"\r\nf%d UID FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[])\r\n", i, f, i)
		if f != "INBOX" {
			_, _ = fmt.Fprintf(dst.w, "c%d CREATE \"%s\"\r\n", i, f)
		}
		_, _ = fmt.Fprintf(dst.w, "u%d SUBSCRIBE \"%s\"\r\n", i, f)
	}
	if err := src.w.Flush(); err != nil {
		return err
	}
	answers := make(chan error, 1)
	go func() { answers <- dst.until("end ") }()
	for i, f := range folders {
		if err := floorFolder(src, dst, f, fmt.Sprintf("f%d ", i)); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	_, _ = fmt.Fprintf(dst.w, "end NOOP\r\n")
	if err := dst.w.Flush(); err != nil {
		return err
	}
	return <-answers
}

func floorFolder(src, dst *Raw, folder, end string) error {
	open := 0
	for {
		line, err := src.r.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.HasPrefix(line, end) {
			break
		}
		m := fetched.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if open == 0 {
			_, _ = fmt.Fprintf(dst.w, `m APPEND "%s"`, folder)
		}
		size, err := strconv.ParseInt(m[3], 10, 64)
		if err != nil {
			return err
		}
		flags := strings.ReplaceAll(m[1], `\Recent`, "")
		_, _ = fmt.Fprintf(dst.w, " (%s) %s {%d+}\r\n", strings.TrimSpace(flags), m[2], size)
		if _, err := io.CopyN(dst.w, src.r, size); err != nil {
			return err
		}
		if open++; open == 50 {
			_, _ = fmt.Fprintf(dst.w, "\r\n")
			open = 0
		}
	}
	if open > 0 {
		_, _ = fmt.Fprintf(dst.w, "\r\n")
	}
	return nil
}

// until reads answers, none of which may be a refusal, up to that of a tag.
func (r *Raw) until(tag string) error {
	for {
		line, err := r.r.ReadString('\n')
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(line, tag):
			return nil
		case !strings.HasPrefix(line, "* ") && !strings.Contains(line, " OK "):
			return fmt.Errorf("answered %q", line)
		}
	}
}
