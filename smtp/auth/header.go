package auth

import (
	"strconv"
	"strings"

	"github.com/emersion/go-msgauth/authres"
)

// Results is everything that was found out about one message. Nil and zero parts
// were not checked.
type Results struct {
	// IPRev is pass where the client's reverse name resolves back, fail where it
	// does not (RFC 8601, section 2.7.3); Addr is the client's address.
	IPRev    Result
	Addr     string
	Helo     SPFResult
	MailFrom SPFResult
	DKIM     []DKIMResult
	DMARC    DMARCResult
	ARC      ARCResult
}

// Header is the value of an Authentication-Results field under the name
// authserv, folded (RFC 8601, section 2.2). What came from outside is quoted where
// it must be.
func (r Results) Header(authserv string) string {
	var list []authres.Result
	if r.IPRev != "" {
		list = append(list, generic("iprev", r.IPRev, "", "policy.iprev", r.Addr))
	}
	if r.MailFrom.Result != "" {
		list = append(list, generic("spf", r.MailFrom.Result, "", "smtp.mailfrom", r.MailFrom.Identity))
	}
	if r.Helo.Result != "" {
		list = append(list, generic("spf", r.Helo.Result, "", "smtp.helo", r.Helo.Identity))
	}
	for _, d := range r.DKIM {
		list = append(list, generic("dkim", d.Result, d.Reason, "header.d", d.Domain, "header.i", d.Identifier, "header.s", d.Selector, "header.b", d.Signature))
	}
	if len(r.DKIM) == 0 && r.DMARC.Result != "" {
		list = append(list, generic("dkim", None, ""))
	}
	if r.DMARC.Result != "" {
		list = append(list, generic("dmarc", r.DMARC.Result, r.DMARC.Reason, "header.from", r.DMARC.Domain, "policy.published-domain-policy", string(r.DMARC.Policy)))
	}
	if r.ARC.Result != "" {
		oldest := ""
		if r.ARC.Result == Pass && r.ARC.OldestPass > 0 {
			oldest = strconv.Itoa(r.ARC.OldestPass)
		}
		list = append(list, generic("arc", r.ARC.Result, r.ARC.Reason, "header.oldest-pass", oldest)) // RFC 8617, section 5.2, step 5
	}
	var b strings.Builder
	b.WriteString(clean(authserv))
	if len(list) == 0 {
		b.WriteString("; none")
	}
	for _, one := range list {
		b.WriteString(";\r\n\t" + strings.TrimSpace(strings.TrimPrefix(authres.Format("", []authres.Result{one}), "; ")))
	}
	return b.String()
}

func generic(method string, value Result, reason string, pairs ...string) authres.Result {
	params := map[string]string{}
	if reason != "" {
		params["reason"] = clean(reason)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			params[pairs[i]] = clean(pairs[i+1])
		}
	}
	return &authres.GenericResult{Method: method, Value: authres.ResultValue(value), Params: params}
}

// clean makes a value fit into one line of a header: no control characters, no
// quotes or backslashes, at most 200 bytes. No semicolons either: there are readers
// that see the next result behind one, even within quotes.
func clean(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '"' || r == '\\' || r == ';' || r == '\uFFFD' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// AuthservID is the name under which the value of an Authentication-Results
// field was written, in lower case; empty where there is none.
func AuthservID(value string) string {
	value = strings.TrimLeft(value, " \t\r\n")
	for strings.HasPrefix(value, "(") { // a comment may come first
		i := strings.IndexByte(value, ')')
		if i < 0 {
			return ""
		}
		value = strings.TrimLeft(value[i+1:], " \t\r\n")
	}
	end := strings.IndexAny(value, "; \t\r\n(")
	if end < 0 {
		end = len(value)
	}
	return strings.ToLower(strings.Trim(value[:end], `"`))
}
