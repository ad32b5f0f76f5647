package builtin

import (
	"bytes"
	"fmt"
	"net/mail"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"understudy/smtp"
	"understudy/smtp/auth"
	"understudy/spamsync/message"
)

// gtube is the test message of spam filters.
const gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

// inspect looks at the message itself. It is a pure function of both.
func inspect(f *findings, env *smtp.Envelope, m *message.Message) {
	if strings.Contains(m.Text, gtube) || strings.Contains(m.Get("Subject"), gtube) {
		f.add(symGTUBE, "the test message of spam filters")
	}
	names := faultSymbols()
	for _, fault := range m.Faults {
		if name := names[fault]; name != "" {
			f.add(name, string(fault))
		}
	}
	inspectHeader(f, m)
	inspectDate(f, m, env.Received)
	inspectFrom(f, env, m)
	inspectBody(f, m)
	for _, p := range m.Parts {
		inspectAttachment(f, p)
	}
}

func inspectHeader(f *findings, m *message.Message) {
	for _, h := range []struct{ name, symbol string }{
		{"From", "MISSING_FROM"}, {"Date", "MISSING_DATE"}, {"Message-ID", "MISSING_MID"}, {"Subject", "MISSING_SUBJECT"},
	} {
		if m.Get(h.name) == "" {
			f.add(h.symbol, "no "+h.name+" field")
		}
	}
	if m.Get("To") == "" && m.Get("Cc") == "" {
		f.add("MISSING_TO", "neither To nor Cc")
	}
	if id := m.Get("Message-ID"); id != "" && (!strings.HasPrefix(id, "<") || !strings.HasSuffix(id, ">") || !strings.Contains(id, "@")) {
		f.add("INVALID_MSGID", id)
	}
	// RFC 5322, section 3.6: at most one of each.
	for _, name := range []string{"Date", "Sender", "Reply-To", "To", "Cc", "Message-ID", "Subject", "MIME-Version", "Content-Type"} {
		if n := len(m.Values(name)); n > 1 {
			f.add("DUPLICATE_HEADER", fmt.Sprintf("%d %s fields", n, name))
		}
	}
	subject := m.Get("Subject")
	text := message.DecodeHeader(subject)
	letters, upper := 0, 0
	for _, r := range text {
		if unicode.IsLetter(r) {
			letters++
			if unicode.IsUpper(r) {
				upper++
			}
		}
	}
	if letters >= 10 && upper == letters {
		f.add("SUBJ_ALL_CAPS", text)
	}
	if strings.HasPrefix(subject, "=?") && text != "" && isASCII(text) {
		f.add("SUBJ_EXCESS_ENCODED", "encoded although it is ASCII")
	}
	if n := strings.Count(m.Get("To")+m.Get("Cc"), "@"); n > 50 {
		f.add("TOO_MANY_RCPTS", fmt.Sprintf("%d addresses", n))
	}
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

func inspectDate(f *findings, m *message.Message, received time.Time) {
	text := m.Get("Date")
	if text == "" || received.IsZero() {
		return
	}
	at, err := mail.ParseDate(text)
	switch {
	case err != nil:
		f.add("INVALID_DATE", text)
	case at.Sub(received) > 24*time.Hour:
		f.add("DATE_IN_FUTURE", text)
	case received.Sub(at) > 30*24*time.Hour:
		f.add("DATE_IN_PAST", text)
	}
}

func inspectFrom(f *findings, env *smtp.Envelope, m *message.Message) {
	values := m.Values("From")
	domains := auth.FromDomains(values)
	if len(values) > 1 || len(domains) > 1 {
		f.add("MULTIPLE_FROM", fmt.Sprintf("%d fields, %d domains", len(values), len(domains)))
	}
	if len(domains) == 0 {
		return
	}
	from := domains[0]
	decoded := message.DecodeHeader(values[0])
	display, _, _ := strings.Cut(decoded, "<")
	if shown := auth.FromDomains([]string{strings.Trim(display, `"' `)}); strings.Contains(display, "@") && strings.Contains(decoded, "<") &&
		len(shown) == 1 && strings.Contains(shown[0], ".") && !auth.Aligned(shown[0], from, false) {
		f.add("SPOOF_DISPLAY_NAME", decoded)
	}
	if d := smtp.Domain(env.Sender); d != "" && !auth.Aligned(d, from, false) {
		f.add("FROM_NEQ_ENVFROM", d+" and "+from)
	}
	if reply := auth.FromDomains(m.Values("Reply-To")); len(reply) > 0 && !auth.Aligned(reply[0], from, false) && m.Get("List-Id") == "" {
		f.add("REPLYTO_NEQ_FROM_DOM", reply[0]+" and "+from)
	}
}

func inspectBody(f *findings, m *message.Message) {
	text, other := 0, 0
	for _, p := range m.Parts {
		switch {
		case p.Container():
		case p.Type == "text/html":
		case strings.HasPrefix(p.Type, "text/"):
			text++
		default:
			other++
		}
	}
	h := m.HTML
	if h.Parts > 0 && text == 0 {
		f.add("HTML_ONLY", "no text but HTML")
	}
	if h.Hidden > 0 {
		f.add("HTML_HIDDEN_TEXT", fmt.Sprintf("%d hidden elements", h.Hidden))
	}
	if h.Forms > 0 {
		f.add("HTML_FORM", fmt.Sprintf("%d forms", h.Forms))
	}
	if h.Scripts > 0 {
		f.add("HTML_SCRIPT", fmt.Sprintf("%d scripts", h.Scripts))
	}
	if h.Parts > 0 && h.Images-h.TinyImages > 0 && len(strings.TrimSpace(m.Text)) < 100 {
		f.add("HTML_MOSTLY_IMAGES", fmt.Sprintf("%d images, %d bytes of text", h.Images, len(strings.TrimSpace(m.Text))))
	}
	if h.DataURLs > 0 {
		f.add("HTML_DATA_URL", fmt.Sprintf("%d data: URLs", h.DataURLs))
	}
	if h.Mismatched > 0 {
		f.add("URL_MISMATCH", fmt.Sprintf("%d links show another host than they lead to", h.Mismatched))
	}
	for _, u := range m.URLs {
		if u.Numeric() {
			f.add("URL_NUMERIC", u.Host)
		}
		if u.User {
			f.add("URL_USERINFO", u.Raw)
		}
	}
	if strings.TrimSpace(m.Text) == "" && other == 0 {
		f.add("EMPTY_BODY", "no text")
	}
}

// The kinds of files, by extension.
func executableExtensions() []string {
	return []string{
		".exe", ".com", ".scr", ".pif", ".bat", ".cmd", ".vbs", ".vbe", ".js", ".jse", ".wsf", ".wsh", ".hta", ".msi", ".msc", ".jar", ".cpl",
		".lnk", ".reg", ".ps1", ".dll", ".chm", ".iso", ".img", ".vhd", ".appx", ".scf", ".url", ".one",
	}
}

func macroExtensions() []string {
	return []string{".docm", ".xlsm", ".pptm", ".dotm", ".xltm", ".xlsb", ".xll", ".ppam"}
}

func archiveExtensions() []string {
	return []string{".zip", ".rar", ".7z", ".gz", ".bz2", ".xz", ".tar", ".tgz", ".ace", ".arj", ".cab", ".lzh", ".z", ".zst"}
}

func documentExtensions() []string {
	return []string{".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".txt", ".jpg", ".jpeg", ".png", ".gif", ".htm", ".html", ".csv", ".zip", ".rtf"}
}

// inspectAttachment judges a file by its name and first bytes; it never opens it.
func inspectAttachment(f *findings, p message.Part) {
	name := strings.ToLower(strings.TrimRight(p.Name, ". \t"))
	ext := path.Ext(name)
	program := bytes.HasPrefix(p.Head, []byte("MZ")) || bytes.HasPrefix(p.Head, []byte("\x7fELF"))
	switch {
	case name == "" && !program:
		return
	case slices.Contains(executableExtensions(), ext):
		f.add("ATTACH_EXECUTABLE", name)
		if before := path.Ext(strings.TrimRight(strings.TrimSuffix(name, ext), " ._-")); slices.Contains(documentExtensions(), before) {
			f.add("ATTACH_DOUBLE_EXTENSION", name)
		}
	case program:
		f.add("ATTACH_DISGUISED", "a program named "+name)
	case ext == ".htm" || ext == ".html" || ext == ".shtml" || ext == ".svg":
		f.add("ATTACH_HTML", name)
	case slices.Contains(macroExtensions(), ext):
		f.add("ATTACH_MACRO", name)
	case slices.Contains(archiveExtensions(), ext):
		f.add("ATTACH_ARCHIVE", name)
		if before := path.Ext(strings.TrimSuffix(name, ext)); slices.Contains(executableExtensions(), before) {
			f.add("ATTACH_DOUBLE_EXTENSION", name)
		}
	}
	if strings.ContainsFunc(p.Name, func(r rune) bool { return r == '\u202e' || r == '\u202d' }) {
		f.add("ATTACH_DISGUISED", "the name is written backwards: "+name)
	}
}

// inspectClient looks at how the client introduced itself.
func inspectClient(f *findings, c smtp.Client, hostname string, domains []string) {
	helo := strings.TrimSuffix(strings.ToLower(c.HELO), ".")
	switch {
	case helo == "":
		f.add("HELO_MISSING", "no HELO")
	case strings.HasPrefix(helo, "["):
		if a, err := netip.ParseAddr(strings.TrimPrefix(strings.Trim(helo, "[]"), "ipv6:")); err != nil || a.Unmap() != c.Addr.Addr().Unmap() {
			f.add("HELO_BARE_IP", helo)
		}
	case isAddr(helo):
		f.add("HELO_BARE_IP", helo)
	case helo == strings.ToLower(hostname) || slices.Contains(domains, helo):
		f.add("HELO_OURS", helo)
	case !strings.Contains(helo, "."):
		f.add("HELO_NOT_FQDN", helo)
	}
	switch {
	case c.ReverseName == "":
		f.add("RDNS_NONE", "no reverse name that leads back")
	case dynamicName(c.ReverseName, c.Addr.Addr()):
		f.add("RDNS_DYNAMIC", c.ReverseName)
	}
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// dynamicName reports whether a reverse name looks like one of a dial-up pool:
// the address within it, and no word that says it is a mail server.
func dynamicName(name string, addr netip.Addr) bool {
	name = strings.ToLower(name)
	if !addr.Unmap().Is4() || strings.Contains(name, "static") {
		return false
	}
	for _, w := range []string{"mail", "smtp", "mx", "relay", "mta", "out"} {
		if strings.HasPrefix(name, w) {
			return false
		}
	}
	parts := strings.FieldsFunc(name, func(r rune) bool { return r < '0' || r > '9' })
	found := 0
	for octet := range strings.SplitSeq(addr.Unmap().String(), ".") {
		if slices.Contains(parts, octet) {
			found++
		}
	}
	return found >= 4
}
