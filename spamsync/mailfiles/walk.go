package mailfiles

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Mail is one message that was found.
type Mail struct {
	// Name is the file, and in an mbox the number of the message: "junk:3".
	Name string
	Raw  []byte
	// Cut says that the message is longer than Raw.
	Cut bool
}

// Walk calls fn for every message at path: a file, an mbox, or all files below a
// directory, in the order of their names. Of each message at most maxBytes are
// read. In directories hidden files, a Maildir's tmp and what Dovecot keeps there
// are passed over. An error of fn ends it.
func Walk(path string, maxBytes int64, fn func(Mail) error) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("find messages: %w", err)
	}
	if !info.IsDir() {
		return file(path, maxBytes, fn)
	}
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p == path:
			return nil
		case d.IsDir() && d.Name() == "tmp":
			return filepath.SkipDir
		case d.IsDir() || !d.Type().IsRegular() || skipped(d.Name()):
			return nil
		}
		return file(p, maxBytes, fn)
	})
	if err != nil {
		return fmt.Errorf("find messages: %w", err)
	}
	return nil
}

// skipped says that a file in a Maildir is no message.
func skipped(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "dovecot") ||
		name == "maildirfolder" || name == "maildirsize" || name == "subscriptions"
}

// file hands over the messages of one file.
func file(path string, maxBytes int64, fn func(Mail) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open message: %w", err)
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 64<<10)
	if start, _ := r.Peek(5); string(start) == "From " {
		return mbox(path, r, maxBytes, fn)
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	m := Mail{Name: path, Raw: raw, Cut: int64(len(raw)) > maxBytes}
	if m.Cut {
		m.Raw = raw[:maxBytes]
	}
	return fn(m)
}

// mbox hands over the messages between lines that begin with "From ".
func mbox(path string, r *bufio.Reader, maxBytes int64, fn func(Mail) error) error {
	var (
		buf   bytes.Buffer
		n     int
		cut   bool
		blank = true // the line before was empty, as before every "From "
		begin = true // at the start of a line
	)
	flush := func() error {
		if n == 0 {
			return nil
		}
		raw := bytes.Clone(buf.Bytes())
		if !cut { // the empty line before the next "From " is the mbox's
			if t, ok := bytes.CutSuffix(raw, []byte("\r\n\r\n")); ok {
				raw = append(t, "\r\n"...)
			} else if t, ok := bytes.CutSuffix(raw, []byte("\n\n")); ok {
				raw = append(t, '\n')
			}
		}
		return fn(Mail{Name: fmt.Sprintf("%s:%d", path, n), Raw: raw, Cut: cut})
	}
	for {
		line, err := r.ReadSlice('\n')
		if len(line) > 0 {
			if begin && blank && bytes.HasPrefix(line, []byte("From ")) {
				if err := flush(); err != nil {
					return err
				}
				buf.Reset()
				n, cut = n+1, false
			} else {
				if begin && quoted(line) {
					line = line[1:]
				}
				if room := maxBytes - int64(buf.Len()); int64(len(line)) > room {
					buf.Write(line[:max(room, 0)])
					cut = true
				} else {
					buf.Write(line)
				}
			}
			blank = begin && len(bytes.TrimRight(line, "\r\n")) == 0
			begin = line[len(line)-1] == '\n'
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return flush()
		case err != nil:
			return fmt.Errorf("read mbox: %w", err)
		}
	}
}

// quoted recognises ">From ", ">>From " and so on.
func quoted(line []byte) bool {
	rest := bytes.TrimLeft(line, ">")
	return len(rest) < len(line) && bytes.HasPrefix(rest, []byte("From "))
}
