package milter

import (
	"fmt"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"understudy/smtp"
	"understudy/spamsync/engine/link"
)

// judge turns what one milter said at its end into a verdict and makes its
// changes in h.
func judge(act *gomilter.Action, mods []gomilter.ModifyAction, h *header) (smtp.Verdict, error) {
	v := smtp.Verdict{Engine: engineName}
	switch act.Code {
	case gomilter.ActAccept, gomilter.ActContinue:
	case gomilter.ActDiscard:
		v.Action, v.Text = smtp.Quarantine, "the milter said discard; nothing is dropped here"
		return v, nil
	case gomilter.ActReject:
		v.Action, v.Code, v.Enhanced, v.Text = smtp.Reject, 554, "5.7.1", "Command rejected"
		return v, nil
	case gomilter.ActTempFail:
		v.Action, v.Code, v.Enhanced, v.Text = smtp.Defer, 451, "4.7.1", "Service unavailable, try again later"
		return v, nil
	case gomilter.ActReplyCode:
		return reply(act)
	case gomilter.ActSkip:
		return smtp.Verdict{}, fmt.Errorf("unexpected action %q", rune(act.Code))
	default:
		return smtp.Verdict{}, fmt.Errorf("unknown action %q", rune(act.Code))
	}
	before := h.snapshot()
	for _, m := range mods {
		switch m.Code {
		case gomilter.ActAddHeader:
			h.add(m.HeaderName, m.HeaderValue)
		case gomilter.ActInsertHeader:
			h.insert(before, m.HeaderIndex, m.HeaderName, m.HeaderValue)
		case gomilter.ActChangeHeader:
			h.change(before, m.HeaderIndex, m.HeaderName, m.HeaderValue)
		case gomilter.ActQuarantine:
			v.Action, v.Text = smtp.Quarantine, link.Text(m.Reason, 400)
		case gomilter.ActAddRcpt, gomilter.ActDelRcpt, gomilter.ActReplBody, gomilter.ActChangeFrom:
			return smtp.Verdict{}, fmt.Errorf("milter wants a change that cannot be made (%q): other recipients, sender or body", rune(m.Code))
		default:
			return smtp.Verdict{}, fmt.Errorf("unknown change %q", rune(m.Code))
		}
	}
	return v, nil
}

// reply reads a reply of the milter's own: "550", "5.7.1 Spam".
func reply(act *gomilter.Action) (smtp.Verdict, error) {
	v := smtp.Verdict{Engine: engineName, Code: act.SMTPCode}
	switch {
	case act.SMTPCode >= 400 && act.SMTPCode < 500:
		v.Action, v.Enhanced, v.Text = smtp.Defer, "4.7.1", "Try again later"
		if v.Code == 421 { // would end the connection
			v.Code = 451
		}
	case act.SMTPCode >= 500 && act.SMTPCode < 600:
		v.Action, v.Enhanced, v.Text = smtp.Reject, "5.7.1", "Message rejected"
	default:
		return smtp.Verdict{}, fmt.Errorf("unexpected reply %d", act.SMTPCode)
	}
	text := link.Text(strings.ReplaceAll(act.SMTPText, "%%", "%"), 400)
	if first, rest, _ := strings.Cut(text, " "); enhanced(first, v.Enhanced[0]) {
		v.Enhanced, text = first, rest
	}
	if text != "" {
		v.Text = text
	}
	return v, nil
}

// enhanced says whether s is an enhanced code of the class (RFC 3463, section 2).
func enhanced(s string, class byte) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != string(class) {
		return false
	}
	for _, p := range parts {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}
