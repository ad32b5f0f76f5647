package corpus

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"mime"
	"mime/quotedprintable"
	"net/netip"
	"strings"
	"time"
)

// Sample is a message with its envelope.
type Sample struct {
	// Name is unique within what one call generated.
	Name string
	// Spam is the class.
	Spam bool
	// Addr, HELO and ReverseName are the client's; Sender and Recipient the envelope's.
	Addr        netip.Addr
	HELO        string
	ReverseName string
	Sender      string
	Recipient   string
	// Message is the message with CRLF line ends, unless its shape is about that.
	Message []byte
}

// Epoch is about when the messages were written.
func Epoch() time.Time { return time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC) }

// writer makes one message.
type writer struct {
	r     *rand.Rand
	words words
	spam  bool
	n     int
}

// Generate returns n samples of both classes in turn, each different.
func Generate(seed uint64, n int) []Sample {
	r := rand.New(rand.NewPCG(seed, 0x636f72707573))
	out := make([]Sample, n)
	for i := range out {
		w := &writer{r: r, spam: i%2 == 0, n: i}
		w.words = vocabulary(w.spam)
		out[i] = w.sample(seed)
	}
	return out
}

func (w *writer) pick(list []string) string { return list[w.r.IntN(len(list))] }

// chance is true in percent of a hundred cases.
func (w *writer) chance(percent int) bool { return w.r.IntN(100) < percent }

// sample makes envelope and message.
func (w *writer) sample(seed uint64) Sample {
	domain := fmt.Sprintf("%s%d.example", w.pick(w.words.hosts), w.r.IntN(12))
	s := Sample{
		Name: fmt.Sprintf("%s-%d-%04d", class(w.spam), seed, w.n), Spam: w.spam,
		Sender: w.pick(names()) + "@" + domain, Recipient: w.pick(names()) + "@primary.example",
		HELO: "mail." + domain,
	}
	third := byte(w.r.IntN(2))
	if w.spam {
		s.Addr = netip.AddrFrom4([4]byte{198, 51, 100, third*100 + byte(w.r.IntN(100))})
	} else {
		s.Addr = netip.AddrFrom4([4]byte{203, 0, 113, third*100 + byte(w.r.IntN(100))})
	}
	if w.chance(85) {
		s.ReverseName = s.HELO
	}
	subject := w.sentence(2 + w.r.IntN(6))
	at := Epoch().Add(time.Duration(w.r.IntN(4*24*3600)) * time.Second)
	header := []string{
		"From: " + w.address(s.Sender), "To: " + w.address(s.Recipient), "Subject: " + w.encodeSubject(subject),
		"Date: " + at.Format(time.RFC1123Z), fmt.Sprintf("Message-ID: <%x.%d@%s>", w.r.Uint64(), w.n, domain), "MIME-Version: 1.0",
	}
	if w.chance(30) {
		header = append(header, "X-Mailer: "+w.pick([]string{"Quill 3.1", "Pigeon/8", "Post Office 12.4", "sendbulk 1"}))
	}
	if w.chance(20) {
		header = append(header, "Reply-To: "+w.pick(names())+"@"+domain)
	}
	if w.chance(15) {
		header = append(header, "List-Id: <"+w.pick(w.words.nouns)+"."+domain+">", "List-Unsubscribe: <https://"+domain+"/u>")
	}
	w.r.Shuffle(len(header), func(i, j int) { header[i], header[j] = header[j], header[i] })
	trace := fmt.Sprintf("Received: from %s ([%s])\r\n\tby mx.primary.example; %s\r\n", s.HELO, s.Addr, at.Format(time.RFC1123Z))
	s.Message = []byte(trace + strings.Join(header, "\r\n") + "\r\n" + w.body(domain))
	return s
}

func class(spam bool) string {
	if spam {
		return "spam"
	}
	return "ham"
}

func (w *writer) address(a string) string {
	local, _, _ := strings.Cut(a, "@")
	switch w.r.IntN(4) {
	case 0:
		return a
	case 1:
		return "<" + a + ">"
	case 2:
		return `"` + strings.ToUpper(local[:1]) + local[1:] + ` ` + w.pick(names()) + `" <` + a + ">"
	}
	return mime.QEncoding.Encode("utf-8", "Jörg "+local) + " <" + a + ">"
}

func (w *writer) encodeSubject(s string) string {
	switch w.r.IntN(4) {
	case 0:
		return mime.QEncoding.Encode("utf-8", s+" é")
	case 1:
		return mime.BEncoding.Encode("utf-8", s+" ü")
	}
	return s
}

// sentence has so many words: of the class, of both, and rarely of the other.
func (w *writer) sentence(n int) string {
	other := vocabulary(!w.spam)
	out := make([]string, n)
	for i := range out {
		switch p := w.r.IntN(100); {
		case p < 55:
			out[i] = w.pick(glue())
		case p < 70:
			out[i] = w.pick(w.words.nouns)
		case p < 80:
			out[i] = w.pick(w.words.verbs)
		case p < 92:
			out[i] = w.pick(neutral())
		case p < 95:
			out[i] = w.pick(other.nouns)
		default:
			out[i] = fmt.Sprintf("%s%d", w.pick([]string{"ref", "no", "item"}), w.r.IntN(10_000))
		}
	}
	return strings.Join(out, " ")
}

// text has paragraphs of about so many bytes, with URLs.
func (w *writer) text(bytes int, domain string) string {
	var b strings.Builder
	for b.Len() < bytes {
		s := w.sentence(5 + w.r.IntN(12))
		b.WriteString(strings.ToUpper(s[:1]) + s[1:] + w.pick([]string{".", "!", "?", "."}))
		if w.chance(12) {
			fmt.Fprintf(&b, " http://www.%s/%s/%d", domain, w.pick(w.words.nouns), w.r.IntN(1000))
		}
		if w.chance(25) {
			b.WriteString("\r\n")
		} else {
			b.WriteString("\r\n\r\n"[:2])
		}
	}
	return b.String()
}

// body has one of several MIME shapes.
func (w *writer) body(domain string) string {
	size := 300 << w.r.IntN(5)
	text := w.text(size, domain)
	switch w.r.IntN(6) {
	case 0:
		return "Content-Type: text/plain; charset=us-ascii\r\n\r\n" + text
	case 1:
		return "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + qp(text+"Grüße\r\n")
	case 2:
		return "Content-Type: text/plain; charset=\"UTF-8\"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64(text+"æøå\r\n")
	case 3:
		return "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + qp(w.html(text, domain))
	case 4:
		b := w.boundary()
		return "Content-Type: multipart/mixed; boundary=\"" + b + "\"\r\n\r\n--" + b + "\r\nContent-Type: text/plain\r\n\r\n" + text +
			"\r\n--" + b + "\r\nContent-Type: application/pdf; name=\"" + w.pick(w.words.nouns) + ".pdf\"\r\nContent-Transfer-Encoding: base64\r\n" +
			"Content-Disposition: attachment\r\n\r\n" + b64("%PDF-1.4 "+w.sentence(40)) + "\r\n--" + b + "--\r\n"
	}
	b := w.boundary()
	return "Content-Type: multipart/alternative;\r\n\tboundary=\"" + b + "\"\r\n\r\nThis is MIME.\r\n--" + b + "\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n" + text +
		"\r\n--" + b + "\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64(w.html(text, domain)) + "\r\n--" + b + "--\r\n"
}

func (w *writer) boundary() string { return fmt.Sprintf("=_%x", w.r.Uint64()) }

func (w *writer) html(text, domain string) string {
	var b strings.Builder
	b.WriteString("<html><head><style>p{margin:0}</style></head><body>")
	for p := range strings.SplitSeq(text, "\r\n") {
		b.WriteString("<p>" + p + "</p>\r\n")
	}
	fmt.Fprintf(&b, "<a href=\"https://%s/%d\">%s</a></body></html>", domain, w.r.IntN(100), w.pick(w.words.verbs))
	return b.String()
}

func b64(s string) string {
	text := base64.StdEncoding.EncodeToString([]byte(s))
	var b strings.Builder
	for len(text) > 76 {
		b.WriteString(text[:76] + "\r\n")
		text = text[76:]
	}
	return b.String() + text + "\r\n"
}

func qp(s string) string {
	var b strings.Builder
	w := quotedprintable.NewWriter(&b)
	_, _ = w.Write([]byte(s)) // a builder takes everything
	_ = w.Close()
	return b.String()
}
