package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"understudy/smtp"
)

// Stamp writes a filter's verdict into the header of accepted mail and removes
// what senders put there to look like one. It is an smtp.Filter.
type Stamp struct {
	Next smtp.Filter
	// Hostname is our name in Authentication-Results.
	Hostname string
	Config   HeaderConfig
	// Key seals the verdict for the other site; nil does not.
	Key []byte
}

var _ smtp.Filter = (*Stamp)(nil)

// maxHeaderBytes bounds the header that is searched for forged fields.
const maxHeaderBytes = 4 << 20

// Check implements smtp.Filter.
func (s *Stamp) Check(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker) (smtp.Verdict, error) {
	v, err := s.Next.Check(ctx, env, body)
	if err != nil || v.Action == smtp.Reject || v.Action == smtp.Defer {
		return v, err
	}
	own := written(v)
	if s.Config.RemoveForged || s.Key != nil {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return smtp.Verdict{}, fmt.Errorf("rewind message: %w", err)
		}
		fields, err := smtp.ReadHeader(body, maxHeaderBytes)
		if err != nil && !errors.Is(err, smtp.ErrHeaderTooLong) {
			return smtp.Verdict{}, fmt.Errorf("read header of message: %w", err)
		}
		// In front: what the engine wants of the same fields goes before it.
		v.Edits = append(forged(fields, s.Hostname, s.Config.RemoveForged), v.Edits...)
	}
	switch s.Config.Style {
	case StyleRspamd:
		v.Header += rspamdStyle(v, own)
	case StyleSpamAssassin:
		v.Header += spamAssassinStyle(v, own)
	}
	if s.Key != nil {
		seal, err := Seal(s.Key, Sealed{
			ID: env.ID, Client: env.Client.Addr.Addr(), Action: v.Action, Spam: v.Spam,
			Score: v.Score, Required: v.Required, Engine: v.Engine, Time: time.Now(),
		}, env.Sender, body)
		if err != nil {
			return smtp.Verdict{}, fmt.Errorf("seal verdict: %w", err)
		}
		v.Header = seal + v.Header
	}
	return v, nil
}

// written lists the fields that the verdict writes itself, in lower case.
func written(v smtp.Verdict) map[string]bool {
	names := make(map[string]bool)
	for line := range strings.Lines(v.Header) {
		if name, _, ok := strings.Cut(line, ":"); ok && line[0] != ' ' && line[0] != '\t' {
			names[strings.ToLower(strings.TrimSpace(name))] = true
		}
	}
	for _, e := range v.Edits {
		if e.Op != smtp.RemoveHeader {
			names[strings.ToLower(e.Name)] = true
		}
	}
	return names
}

// forged returns the edits that remove what only a filter of ours may write: seals
// always, the rest where all is set.
func forged(fields []smtp.HeaderField, hostname string, all bool) []smtp.HeaderEdit {
	var edits []smtp.HeaderEdit
	results := 0
	done := make(map[string]bool)
	for _, f := range fields {
		name := strings.ToLower(f.Name)
		if name == "authentication-results" {
			// RFC 8601, section 5: only those that claim to be ours.
			if results++; all && strings.EqualFold(authserv(f.Value), hostname) {
				edits = append(edits, smtp.HeaderEdit{Op: smtp.RemoveHeader, Name: f.Name, Index: results})
			}
			continue
		}
		if done[name] || !filterField(name) || !all && !strings.EqualFold(name, SealField) {
			continue
		}
		done[name] = true
		edits = append(edits, smtp.HeaderEdit{Op: smtp.RemoveHeader, Name: f.Name})
	}
	return edits
}

// filterField says whether a field, named in lower case, is one that spam filters
// write.
func filterField(name string) bool {
	return name == "x-spam" || strings.HasPrefix(name, "x-spam-") || strings.HasPrefix(name, "x-spamd-") ||
		strings.HasPrefix(name, "x-rspamd-") || strings.EqualFold(name, SealField)
}

// authserv returns the authserv-id of an Authentication-Results field (RFC 8601,
// section 2.2): a word, perhaps quoted, with comments around it.
func authserv(value string) string {
	s := skipComments(value)
	if rest, ok := strings.CutPrefix(s, `"`); ok {
		var b strings.Builder
		for i := 0; i < len(rest) && rest[i] != '"'; i++ {
			if rest[i] == '\\' && i+1 < len(rest) {
				i++
			}
			b.WriteByte(rest[i])
		}
		return strings.TrimSuffix(b.String(), ".")
	}
	if i := strings.IndexAny(s, " \t;("); i >= 0 {
		s = s[:i]
	}
	return strings.TrimSuffix(s, ".")
}

// skipComments drops white space and comments in front (RFC 5322, section 3.2.2).
func skipComments(s string) string {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			i++
		case c == ' ' || c == '\t' || depth > 0:
		default:
			return s[i:]
		}
	}
	return ""
}

// maxListed bounds the findings that a header field names.
const maxListed = 200

func rspamdStyle(v smtp.Verdict, own map[string]bool) string {
	var b strings.Builder
	if v.Spam && !own["x-spam"] {
		b.WriteString(smtp.FormatHeader("X-Spam", "Yes"))
	}
	if v.Engine != "" && !own["x-spamd-result"] {
		spam := "False"
		if v.Spam {
			spam = "True"
		}
		list := []string{"default: " + spam + " [" + score(v.Score, 2) + " / " + score(v.Required, 2) + "]"}
		for _, s := range v.Symbols[:min(len(v.Symbols), maxListed)] {
			list = append(list, s.Name+"("+score(s.Score, 2)+")[]")
		}
		b.WriteString(smtp.FormatHeader("X-Spamd-Result", strings.Join(list, ";\n\t")))
	}
	return b.String()
}

func spamAssassinStyle(v smtp.Verdict, own map[string]bool) string {
	var b strings.Builder
	if v.Spam && !own["x-spam-flag"] {
		b.WriteString(smtp.FormatHeader("X-Spam-Flag", "YES"))
	}
	if stars := int(math.Min(math.Max(v.Score, 0), 50)); stars > 0 && !own["x-spam-level"] {
		b.WriteString(smtp.FormatHeader("X-Spam-Level", strings.Repeat("*", stars)))
	}
	if v.Engine != "" && !own["x-spam-status"] {
		spam := "No"
		if v.Spam {
			spam = "Yes"
		}
		var tests []string
		for _, s := range v.Symbols[:min(len(v.Symbols), maxListed)] {
			tests = append(tests, s.Name)
		}
		if len(tests) == 0 {
			tests = []string{"none"}
		}
		b.WriteString(smtp.FormatHeader("X-Spam-Status", spam+", score="+score(v.Score, 1)+" required="+score(v.Required, 1)+
			"\n\ttests="+strings.Join(tests, ",\n\t")+"\n\tautolearn=disabled"))
	}
	return b.String()
}

func score(f float64, digits int) string { return strconv.FormatFloat(f, 'f', digits, 64) }
