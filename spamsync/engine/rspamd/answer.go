package rspamd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"understudy/smtp"
	"understudy/spamsync/engine/link"
)

// answer is what is used of Rspamd's reply to /checkv2; unknown fields are left
// to later versions of it.
type answer struct {
	Action   *string           `json:"action"`
	Score    float64           `json:"score"`
	Required float64           `json:"required_score"`
	Symbols  map[string]symbol `json:"symbols"`
	Subject  string            `json:"subject"`
	Messages messages          `json:"messages"`
	DKIM     list[string]      `json:"dkim-signature"`
	Milter   milterBlock       `json:"milter"`
}

type symbol struct {
	Score float64 `json:"score"`
}

// messages are words for people; Rspamd sends an object, older ones a list.
type messages struct{ smtp string }

func (m *messages) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '{' {
		return nil
	}
	var o struct {
		SMTP string `json:"smtp_message"`
	}
	if err := json.Unmarshal(b, &o); err != nil {
		return err
	}
	m.smtp = o.SMTP
	return nil
}

// list is one value or several.
type list[T any] []T

func (l *list[T]) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]T)(l))
	}
	var one T
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*l = list[T]{one}
	return nil
}

// milterBlock is what Rspamd asks a mail server to do with the header.
type milterBlock struct {
	Add      map[string]list[added] `json:"add_headers"`
	Remove   map[string]list[int]   `json:"remove_headers"`
	Reject   string                 `json:"reject"`
	NoAction bool                   `json:"no_action"`
}

// UnmarshalJSON takes only an object: with nothing to do it may be an empty list.
func (m *milterBlock) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '{' {
		return nil
	}
	type plain milterBlock
	return json.Unmarshal(b, (*plain)(m))
}

// added is a header to add: a value, or an object with its place.
type added struct {
	Value string `json:"value"`
	Order int    `json:"order"`
}

func (a *added) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &a.Value)
	}
	type plain added
	return json.Unmarshal(b, (*plain)(a))
}

// maxSymbols bounds the findings that are kept with a message.
const maxSymbols = 1000

// parse reads one answer; anything that is not exactly one is an error.
func parse(raw []byte) (answer, error) {
	var a answer
	if len(bytes.TrimSpace(raw)) == 0 {
		return a, errors.New("empty answer")
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return answer{}, fmt.Errorf("decode answer: %w", err)
	}
	if a.Action == nil {
		return answer{}, errors.New("answer has no action")
	}
	if _, ok := actionOf(*a.Action); !ok {
		return answer{}, fmt.Errorf("unknown action %q", link.Text(*a.Action, 64))
	}
	return a, nil
}

// kind is an action of Rspamd.
type kind uint8

const (
	kindNone kind = iota
	kindMark
	kindSubject
	kindQuarantine
	kindSoftReject
	kindGreylist
	kindReject
	kindDiscard
)

func actionOf(name string) (kind, bool) {
	switch strings.ReplaceAll(strings.ToLower(name), "_", " ") {
	case "no action":
		return kindNone, true
	case "add header":
		return kindMark, true
	case "rewrite subject":
		return kindSubject, true
	case "quarantine":
		return kindQuarantine, true
	case "soft reject":
		return kindSoftReject, true
	case "greylist":
		return kindGreylist, true
	case "reject":
		return kindReject, true
	case "discard":
		return kindDiscard, true
	}
	return 0, false
}

// verdict turns the answer into ours. fields reads the message's header, which is
// needed only to count from its end.
func (a answer) verdict(fields func() ([]smtp.HeaderField, error)) (smtp.Verdict, error) {
	v := smtp.Verdict{Engine: engineName, Score: finite(a.Score), Required: finite(a.Required), Symbols: a.symbols()}
	k, _ := actionOf(*a.Action)
	if a.Milter.NoAction {
		k = kindNone
	}
	switch a.Milter.Reject {
	case "quarantine":
		k = kindQuarantine
	case "discard":
		k = kindDiscard
	}
	text := link.Text(a.Messages.smtp, 400)
	subject := ""
	switch k {
	case kindNone:
	case kindMark:
		v.Spam = true
	case kindSubject:
		v.Spam, subject = true, a.Subject
	case kindQuarantine:
		v.Action, v.Spam, v.Text = smtp.Quarantine, true, text
	case kindDiscard:
		v.Action, v.Spam, v.Text = smtp.Quarantine, true, "the engine said discard; nothing is dropped here"
	case kindSoftReject:
		v.Action, v.Code, v.Enhanced, v.Text = smtp.Defer, 451, "4.7.1", orElse(text, "Try again later")
	case kindGreylist:
		v.Action, v.Code, v.Enhanced, v.Text = smtp.Defer, 451, "4.7.1", orElse(text, "Greylisted, please try again later")
	case kindReject:
		v.Action, v.Code, v.Enhanced, v.Text = smtp.Reject, 554, "5.7.1", orElse(text, "Spam message rejected")
		v.Spam = true
	}
	if v.Action == smtp.Reject || v.Action == smtp.Defer {
		return v, nil // no header is needed
	}
	if err := a.changes(&v, subject, fields); err != nil {
		return smtp.Verdict{}, err
	}
	return v, nil
}

// changes adds the header changes the answer asks for.
func (a answer) changes(v *smtp.Verdict, subject string, fields func() ([]smtp.HeaderField, error)) error {
	for _, name := range sorted(a.Milter.Remove) {
		for _, n := range a.Milter.Remove[name] {
			if n < 0 { // counted from the last
				all, err := fields()
				if err != nil {
					return fmt.Errorf("read header of message: %w", err)
				}
				same := 0
				for _, f := range all {
					if strings.EqualFold(f.Name, name) {
						same++
					}
				}
				if n = same + 1 + n; n < 1 {
					continue
				}
			}
			v.Edits = append(v.Edits, smtp.HeaderEdit{Op: smtp.RemoveHeader, Name: name, Index: n})
		}
	}
	if subject != "" {
		v.Edits = append(v.Edits, smtp.HeaderEdit{Op: smtp.ReplaceHeader, Name: "Subject", Value: link.Text(subject, 4096)})
	}
	var front strings.Builder
	for _, s := range a.DKIM {
		front.WriteString(smtp.FormatHeader("DKIM-Signature", s))
	}
	for _, name := range sorted(a.Milter.Add) {
		for _, h := range a.Milter.Add[name] {
			switch {
			case h.Order < 0:
				v.Edits = append(v.Edits, smtp.HeaderEdit{Op: smtp.AppendHeader, Name: name, Value: h.Value})
			case h.Order > 1:
				v.Edits = append(v.Edits, smtp.HeaderEdit{Op: smtp.InsertHeader, Name: name, Index: h.Order, Value: h.Value})
			default:
				front.WriteString(smtp.FormatHeader(name, h.Value))
			}
		}
	}
	v.Header = front.String()
	return nil
}

// symbols returns the findings, the heaviest first.
func (a answer) symbols() []smtp.Symbol {
	out := make([]smtp.Symbol, 0, len(a.Symbols))
	for name, s := range a.Symbols {
		out = append(out, smtp.Symbol{Name: link.Name(name), Score: finite(s.Score)})
	}
	slices.SortFunc(out, func(x, y smtp.Symbol) int {
		if d := math.Abs(y.Score) - math.Abs(x.Score); d != 0 {
			if d > 0 {
				return 1
			}
			return -1
		}
		return strings.Compare(x.Name, y.Name)
	})
	return out[:min(len(out), maxSymbols)]
}

func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// finite keeps what JSON cannot hold out of the envelope.
func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
