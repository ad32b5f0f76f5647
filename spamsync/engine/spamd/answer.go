package spamd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"understudy/smtp"
	"understudy/spamsync/engine/link"
)

// answer is what spamd said of one message.
type answer struct {
	spam            bool
	score, required float64
	symbols         []smtp.Symbol
	header          string // its own X-Spam fields
}

const (
	maxLineBytes = 4096
	maxLines     = 64
	maxSymbols   = 1000
)

// parse reads one answer to command.
func parse(r io.Reader, command string) (answer, error) {
	in := bufio.NewReaderSize(r, maxLineBytes)
	line, err := readLine(in)
	if err != nil {
		return answer{}, err
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, text, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if !strings.HasPrefix(proto, "SPAMD/") {
		return answer{}, fmt.Errorf("unexpected answer %q", link.Text(line, 100))
	}
	if code != "0" {
		return answer{}, fmt.Errorf("spamd says %q", link.Text(code+" "+text, 100))
	}
	var a answer
	length, judged := int64(-1), false
	for n := 0; ; n++ {
		if line, err = readLine(in); err != nil {
			return answer{}, err
		}
		if line == "" {
			break
		}
		if n == maxLines {
			return answer{}, link.ErrTooLong
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "spam":
			if judged {
				return answer{}, errors.New("two verdicts in one answer")
			}
			if err := a.judge(value); err != nil {
				return answer{}, err
			}
			judged = true
		case "content-length":
			if length, err = strconv.ParseInt(value, 10, 64); err != nil || length < 0 || length > maxAnswerBytes {
				return answer{}, fmt.Errorf("malformed length %q", link.Text(value, 40))
			}
		}
	}
	if !judged {
		return answer{}, errors.New("answer without a verdict")
	}
	if command == Check {
		return a, nil
	}
	return a, a.detail(in, length, command)
}

func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", link.ErrTooLong
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", fmt.Errorf("read answer: %w", err)
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// judge reads "True ; 6.4 / 5.0".
func (a *answer) judge(value string) error {
	word, numbers, ok := strings.Cut(value, ";")
	score, required, ok2 := strings.Cut(numbers, "/")
	var err1, err2 error
	a.score, err1 = strconv.ParseFloat(strings.TrimSpace(score), 64)
	a.required, err2 = strconv.ParseFloat(strings.TrimSpace(required), 64)
	bad := !ok || !ok2 || err1 != nil || err2 != nil || math.IsNaN(a.score+a.required) || math.IsInf(a.score, 0) || math.IsInf(a.required, 0)
	switch strings.ToLower(strings.TrimSpace(word)) {
	case "true", "yes":
		a.spam = true
	case "false", "no":
	default:
		bad = true
	}
	if bad {
		return fmt.Errorf("malformed verdict %q", link.Text(value, 100))
	}
	return nil
}

// detail reads what follows the answer's own header.
func (a *answer) detail(in io.Reader, length int64, command string) error {
	if length >= 0 {
		in = io.LimitReader(in, length)
	}
	raw, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if length >= 0 && int64(len(raw)) < length {
		return fmt.Errorf("read answer: %w", io.ErrUnexpectedEOF)
	}
	if command == Symbols {
		a.tests(string(raw))
		return nil
	}
	fields, err := smtp.ReadHeader(strings.NewReader(string(raw)), maxAnswerBytes)
	if err != nil {
		return fmt.Errorf("read header: %w", err)
	}
	var b strings.Builder
	for _, f := range fields {
		if !strings.HasPrefix(strings.ToLower(f.Name), "x-spam-") {
			continue // SpamAssassin drops those that the message came with
		}
		b.WriteString(smtp.FormatHeader(f.Name, f.Value))
		if strings.EqualFold(f.Name, "X-Spam-Status") {
			if _, list, ok := strings.Cut(f.Value, "tests="); ok {
				a.tests(testList(list))
			}
		}
	}
	a.header = b.String()
	return nil
}

// testList takes the tests out of the rest of X-Spam-Status: up to the next
// "word=" that does not belong to them. Folding leaves white space behind commas.
func testList(s string) string {
	words := strings.Fields(s)
	for i := range words {
		if !strings.HasSuffix(words[i], ",") {
			return strings.Join(words[:i+1], "")
		}
	}
	return strings.Join(words, "")
}

// tests reads "NAME,NAME=1.5,..."; "none" is none.
func (a *answer) tests(list string) {
	for t := range strings.SplitSeq(list, ",") {
		t = strings.TrimSpace(t)
		if t == "" || strings.EqualFold(t, "none") || len(a.symbols) == maxSymbols {
			continue
		}
		name, score, _ := strings.Cut(t, "=")
		n, err := strconv.ParseFloat(score, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			n = 0
		}
		a.symbols = append(a.symbols, smtp.Symbol{Name: link.Name(name), Score: n})
	}
}

func (a *answer) verdict(rejectScore float64) smtp.Verdict {
	v := smtp.Verdict{
		Engine: engineName, Score: a.score, Required: a.required, Symbols: a.symbols,
		Spam: a.spam, Header: a.header,
	}
	if rejectScore > 0 && a.score >= rejectScore {
		v.Action, v.Code, v.Enhanced, v.Spam = smtp.Reject, 554, "5.7.1", true
		v.Text = fmt.Sprintf("Spam message rejected (score %.1f)", a.score)
		v.Header = ""
	}
	return v
}
