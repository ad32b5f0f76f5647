package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"
)

// plainWidth is the width of a terminal that does not say how wide it is.
const plainWidth = 80

// safe makes text from outside harmless on a terminal: what does not print
// (control characters, escape sequences, changes of direction, broken UTF-8)
// is shown as an escape.
func safe(s string) string {
	clean := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	return b.String()
}

// clip shortens s, which must be safe, to at most width columns; width 0 is no
// bound.
func clip(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	r := []rune(s)
	return string(r[:width-1]) + "…"
}

// pad fills s up with spaces to width columns.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// terminalOf returns the terminal behind w, nil where there is none.
func terminalOf(w io.Writer) *os.File {
	if c, ok := w.(*checkedWriter); ok {
		w = c.w
	}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return f
}

// width is how many columns the output has; 0 where it is not a terminal, so that
// what a script reads is never shortened.
func (a *app) width() int {
	f := terminalOf(a.Out)
	if f == nil {
		return 0
	}
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
		return w
	}
	return plainWidth
}

// interactive says whether a question can be asked and answered.
func (a *app) interactive() bool {
	f, ok := a.In.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && terminalOf(a.Err) != nil
}

// confirm asks the user; anything but yes is no.
func (a *app) confirm(question string) bool {
	a.warnf("%s [y/N] ", question)
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil {
		return false
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true
	}
	return false
}

// humanBytes is a size in at most six columns: "999 B", "4.1 KB" would be wrong by
// 2 %, so the units are powers of 1024.
func humanBytes(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + "B"
	}
	v, unit := float64(n), ""
	for _, unit = range []string{"K", "M", "G", "T", "P"} {
		v /= 1024
		if v < 999.5 {
			break
		}
	}
	if v < 9.95 {
		return strconv.FormatFloat(v, 'f', 1, 64) + unit
	}
	return strconv.FormatFloat(v, 'f', 0, 64) + unit
}

// humanAge is a duration in at most four columns: "59s", "12m", "3h", "29d".
func humanAge(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + "d"
}

// parseAge reads "90s", "12h", "3d", "2w".
func parseAge(s string) (time.Duration, error) {
	for suffix, unit := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseUint(digits, 10, 16)
			if err != nil || n == 0 {
				return 0, fmt.Errorf("%q is not a time like 90s, 12h, 3d or 2w", s)
			}
			return time.Duration(n) * unit, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a time like 90s, 12h, 3d or 2w", s)
	}
	return d, nil
}

// parseBytes reads "500", "10K", "10KiB", "5M", "1GiB".
func parseBytes(s string) (int64, error) {
	number := strings.TrimRight(s, "kKmMgGiIbB")
	unit := strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s[len(number):]), "b"), "i"))
	shift, ok := map[string]uint{"": 0, "k": 10, "m": 20, "g": 30}[unit]
	n, err := strconv.ParseInt(number, 10, 32)
	if !ok || err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is not a size like 500, 10KiB or 5MiB", s)
	}
	return n << shift, nil
}

// safeJSON passes JSON on, with the characters a terminal might obey and JSON
// allows unescaped (DEL, C1 controls, changes of direction) as \u escapes. Only
// strings can hold them, so it stays the same JSON.
type safeJSON struct {
	w    io.Writer
	part []byte // an unfinished character of the last write
}

// Write implements io.Writer.
func (s *safeJSON) Write(p []byte) (int, error) {
	in := append(s.part, p...)
	out := make([]byte, 0, len(in)+64)
	i := 0
	for i < len(in) && (utf8.FullRune(in[i:]) || len(in)-i >= utf8.UTFMax) {
		r, n := utf8.DecodeRune(in[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			out = append(out, `\ufffd`...)
		case r == '\n' || strconv.IsPrint(r):
			out = append(out, in[i:i+n]...)
		default:
			for _, u := range utf16.AppendRune(nil, r) {
				out = fmt.Appendf(out, `\u%04x`, u)
			}
		}
		i += n
	}
	s.part = append([]byte(nil), in[i:]...)
	if _, err := s.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// jsonOut is where JSON that came from the daemon goes.
func (a *app) jsonOut() io.Writer {
	if terminalOf(a.Out) != nil {
		return &safeJSON{w: a.Out}
	}
	return a.Out
}

// plural is "1 message", "2 messages".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
