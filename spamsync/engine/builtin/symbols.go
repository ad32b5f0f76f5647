package builtin

import (
	"cmp"
	"math"
	"slices"

	"understudy/spamsync/message"
)

// The symbols that code refers to from more than one place, or that decide.
const (
	symGTUBE       = "GTUBE"
	symGreylist    = "GREYLIST"
	symRatelimited = "RATELIMITED"
	symBayesSpam   = "BAYES_SPAM"
	symBayesHam    = "BAYES_HAM"
	symRepSpam     = "REPUTATION_SPAM"
	symRepHam      = "REPUTATION_HAM"
	symARCTrusted  = "ARC_TRUSTED"
)

// defaults are the scores of all symbols but those of lists. Names that rspamd
// has mean the same here.
func defaults() map[string]float64 {
	return map[string]float64{
		symGTUBE: 0, symGreylist: 0, symRatelimited: 0, symARCTrusted: 0,
		symBayesSpam: 5.1, symBayesHam: -3, symRepSpam: 2, symRepHam: -2,

		"R_SPF_ALLOW": -0.2, "R_SPF_FAIL": 1, "R_SPF_SOFTFAIL": 0.3, "R_SPF_NEUTRAL": 0, "R_SPF_NA": 0, "R_SPF_PERMFAIL": 0, "R_SPF_DNSFAIL": 0,
		"R_DKIM_ALLOW": -0.2, "R_DKIM_REJECT": 1, "R_DKIM_PERMFAIL": 0, "R_DKIM_TEMPFAIL": 0, "R_DKIM_NA": 0,
		"DMARC_POLICY_ALLOW": -0.5, "DMARC_POLICY_REJECT": 4, "DMARC_POLICY_QUARANTINE": 2, "DMARC_POLICY_SOFTFAIL": 0.1, "DMARC_NA": 0, "DMARC_DNSFAIL": 0,
		"ARC_ALLOW": 0, "ARC_REJECT": 1, "ARC_NA": 0, "ARC_DNSFAIL": 0,

		"HELO_BARE_IP": 3, "HELO_NOT_FQDN": 2, "HELO_OURS": 5, "HELO_MISSING": 1, "RDNS_NONE": 2, "RDNS_DYNAMIC": 1.5,

		"MISSING_FROM": 2, "MULTIPLE_FROM": 8, "MISSING_TO": 1, "MISSING_DATE": 1, "INVALID_DATE": 1.5, "DATE_IN_FUTURE": 2, "DATE_IN_PAST": 1,
		"MISSING_MID": 1.5, "INVALID_MSGID": 1, "MISSING_SUBJECT": 1, "SUBJ_ALL_CAPS": 1.5, "SUBJ_EXCESS_ENCODED": 0.5,
		"DUPLICATE_HEADER": 1.5, "SPOOF_DISPLAY_NAME": 4, "FROM_NEQ_ENVFROM": 0, "REPLYTO_NEQ_FROM_DOM": 0.5, "TOO_MANY_RCPTS": 0.5,

		"HTML_ONLY": 0.3, "HTML_HIDDEN_TEXT": 1, "HTML_FORM": 1.5, "HTML_SCRIPT": 1.5, "HTML_MOSTLY_IMAGES": 1, "HTML_DATA_URL": 0.5,
		"URL_MISMATCH": 3, "URL_NUMERIC": 1.5, "URL_USERINFO": 2, "URL_TOO_MANY": 0.5, "EMPTY_BODY": 0.5,

		"ATTACH_EXECUTABLE": 8, "ATTACH_DOUBLE_EXTENSION": 6, "ATTACH_DISGUISED": 6, "ATTACH_MACRO": 2.5, "ATTACH_ARCHIVE": 0.5, "ATTACH_HTML": 1,

		"HEADER_TOO_LONG": 8, "HEADER_MALFORMED": 1.5, "HEADER_8BIT": 1, "HEADER_ONLY": 0.5,
		"MIME_TOO_MANY_PARTS": 10, "MIME_TOO_DEEP": 10, "MIME_NO_BOUNDARY": 2, "MIME_UNCLOSED": 0.5, "MIME_EMPTY": 1,
		"MIME_BAD_TYPE": 1, "MIME_BAD_ENCODING": 1.5, "MIME_BAD_BASE64": 1.5, "MIME_BAD_QP": 0.5, "MIME_BAD_CHARSET": 1, "MIME_NUL": 2,
	}
}

// faultSymbols name the faults of a message. What is only beyond our bounds is no
// fault of the sender's and has none.
func faultSymbols() map[message.Fault]string {
	return map[message.Fault]string{
		message.HeaderTooLong: "HEADER_TOO_LONG", message.HeaderMalformed: "HEADER_MALFORMED", message.HeaderEightBit: "HEADER_8BIT", message.NoBody: "HEADER_ONLY",
		message.TooManyParts: "MIME_TOO_MANY_PARTS", message.TooDeep: "MIME_TOO_DEEP", message.NoBoundary: "MIME_NO_BOUNDARY", message.Unclosed: "MIME_UNCLOSED",
		message.Empty: "MIME_EMPTY", message.BadType: "MIME_BAD_TYPE", message.BadEncoding: "MIME_BAD_ENCODING", message.BadBase64: "MIME_BAD_BASE64",
		message.BadQP: "MIME_BAD_QP", message.BadCharset: "MIME_BAD_CHARSET", message.NUL: "MIME_NUL", message.TooManyURLs: "URL_TOO_MANY",
	}
}

// Finding is one symbol with its reason.
type Finding struct {
	Name  string  `json:"name"`
	Score float64 `json:"score"`
	Why   string  `json:"why,omitempty"`
}

// findings collects symbols; a name counts once, its first reason stays.
type findings struct {
	scores map[string]float64
	list   []Finding
}

// add adds a symbol with its full score.
func (f *findings) add(name, why string) { f.part(name, 1, why) }

// part adds a symbol with a part of its score, from 0 to 1.
func (f *findings) part(name string, share float64, why string) {
	for _, have := range f.list {
		if have.Name == name {
			return
		}
	}
	f.list = append(f.list, Finding{Name: name, Score: round(f.scores[name] * share), Why: printable(why)})
}

func (f *findings) has(name string) bool {
	return slices.ContainsFunc(f.list, func(x Finding) bool { return x.Name == name })
}

// sorted is by name, and their sum in that order.
func (f *findings) sorted() (list []Finding, sum float64) {
	slices.SortFunc(f.list, func(a, b Finding) int { return cmp.Compare(a.Name, b.Name) })
	for _, x := range f.list {
		sum += x.Score
	}
	return f.list, round(sum)
}

// round is to a thousandth: what is finer differs between machines.
func round(x float64) float64 {
	r := math.Round(x*1000) / 1000
	return r + 0 // no negative zero
}

// printable makes text from outside safe for a terminal and a log, at most 160 bytes.
func printable(s string) string {
	out := make([]rune, 0, min(len(s), 160))
	n := 0
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u202e' || r == '\uFFFD' {
			r = '?'
		}
		if n += len(string(r)); n > 160 {
			break
		}
		out = append(out, r)
	}
	return string(out)
}
