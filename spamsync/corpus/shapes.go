package corpus

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// shape is one way mail looks in the wild; it returns everything behind the
// common header fields, beginning with further fields.
type shape struct {
	name string
	make func(w *writer) string
}

// Shapes returns n samples of shapes that mail has in the wild: nested
// multiparts, encodings, charsets, encoded words, reports, forwards, signatures,
// and every kind of broken MIME. The classes take turns as in Generate.
func Shapes(seed uint64, n int) []Sample {
	r := rand.New(rand.NewPCG(seed, 0x736861706573))
	all := append(sound(), broken()...)
	out := make([]Sample, n)
	for i := range out {
		w := &writer{r: r, spam: i%2 == 0, n: i}
		w.words = vocabulary(w.spam)
		s := w.sample(seed)
		sh := all[(i/2)%len(all)]
		s.Name = fmt.Sprintf("%s-%s-%04d", class(w.spam), strings.ReplaceAll(sh.name, " ", "-"), i)
		at := Epoch().Add(time.Duration(w.r.IntN(4*24*3600)) * time.Second)
		head := fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%x@shapes.example>\r\n",
			w.address(s.Sender), s.Recipient, w.encodeSubject(w.sentence(4)), at.Format(time.RFC1123Z), w.r.Uint64())
		s.Message = []byte(head + sh.make(w))
		out[i] = s
	}
	return out
}

// par is a paragraph.
func (w *writer) par() string { return w.text(200+w.r.IntN(800), w.pick(w.words.hosts)+".example") }

// multi is a multipart of parts, each beginning with its header.
func (w *writer) multi(kind string, parts ...string) string {
	b := w.boundary()
	var out strings.Builder
	fmt.Fprintf(&out, "Content-Type: multipart/%s; boundary=\"%s\"\r\n\r\n", kind, b)
	for _, p := range parts {
		out.WriteString("--" + b + "\r\n" + p + "\r\n")
	}
	out.WriteString("--" + b + "--\r\n")
	return out.String()
}

func (w *writer) plain() string { return "Content-Type: text/plain; charset=utf-8\r\n\r\n" + w.par() }

func (w *writer) htmlPart() string {
	return "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64(w.html(w.par(), "www.site.example"))
}

func (w *writer) file(kind, name, content string) string {
	return "Content-Type: " + kind + "; name=\"" + name + "\"\r\nContent-Disposition: attachment; filename=\"" + name + "\"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64(content)
}

// sound shapes are as they should be.
func sound() []shape {
	return []shape{
		{"plain without mime", func(w *writer) string { return "\r\n" + w.par() }},
		{"flowed", func(w *writer) string { return "Content-Type: text/plain; format=flowed; delsp=yes\r\n\r\n" + w.par() }},
		{"alternative in mixed", func(w *writer) string {
			return w.multi("mixed", w.multi("alternative", w.plain(), w.htmlPart()), w.file("application/pdf", "report.pdf", "%PDF-1.7"))
		}},
		{"related with image", func(w *writer) string {
			return w.multi("related", w.htmlPart(), "Content-Type: image/png\r\nContent-ID: <1>\r\nContent-Transfer-Encoding: base64\r\n\r\n"+b64("\x89PNG\r\n\x1a\n"+w.par()))
		}},
		{"deep but sane", func(w *writer) string {
			return w.multi("mixed", w.multi("related", w.multi("alternative", w.plain(), w.multi("related", w.htmlPart()))))
		}},
		{"forwarded", func(w *writer) string {
			return w.multi("mixed", w.plain(), "Content-Type: message/rfc822\r\n\r\nFrom: x@old.example\r\nSubject: "+w.sentence(4)+"\r\n"+w.multi("alternative", w.plain(), w.htmlPart()))
		}},
		{"bounce", func(w *writer) string {
			return w.multi("report; report-type=delivery-status", w.plain(),
				"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; a@b.example\r\nAction: failed\r\nStatus: 5.1.1",
				"Content-Type: text/rfc822-headers\r\n\r\nSubject: "+w.sentence(3))
		}},
		{"digest", func(w *writer) string {
			return w.multi("digest", "\r\nSubject: "+w.sentence(3)+"\r\n\r\n"+w.par(), "\r\nSubject: "+w.sentence(3)+"\r\n\r\n"+w.par())
		}},
		{"signed", func(w *writer) string {
			return w.multi("signed; protocol=\"application/pgp-signature\"; micalg=pgp-sha256", w.plain(), "Content-Type: application/pgp-signature\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\niQ==\r\n-----END PGP SIGNATURE-----")
		}},
		{"encrypted", func(w *writer) string {
			return w.multi("encrypted; protocol=\"application/pgp-encrypted\"", "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1", "Content-Type: application/octet-stream\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nhQ==\r\n-----END PGP MESSAGE-----")
		}},
		{"smime", func(w *writer) string {
			return "Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64(w.par())
		}},
		{"invitation", func(w *writer) string {
			return w.multi("alternative", w.plain(), "Content-Type: text/calendar; method=REQUEST; charset=utf-8\r\n\r\nBEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:"+w.sentence(3)+"\r\nEND:VEVENT\r\nEND:VCALENDAR")
		}},
		{"latin1 qp", func(w *writer) string {
			return "Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + w.par() + "Gr=FC=DFe =E9=\r\n end\r\n"
		}},
		{"windows-1252", func(w *writer) string {
			return "Content-Type: text/plain; charset=\"Windows-1252\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\x93quoted\x94 \x80 5\r\n" + w.par()
		}},
		{"koi8-r", func(w *writer) string {
			return "Content-Type: text/plain; charset=koi8-r\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xf0\xd2\xc9\xd7\xc5\xd4\r\n" + w.par()
		}},
		{"shift-jis", func(w *writer) string {
			return "Content-Type: text/plain; charset=shift_jis\r\n\r\n\x82\xb1\x82\xf1\x82\xc9\x82\xbf\x82\xcd\r\n" + w.par()
		}},
		{"iso-2022-jp", func(w *writer) string {
			return "Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$B$3$s$K$A$O\x1b(B\r\n" + w.par()
		}},
		{"gb18030", func(w *writer) string {
			return "Content-Type: text/plain; charset=gb18030\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64("\xc4\xe3\xba\xc3 "+w.par())
		}},
		{"utf-16", func(w *writer) string {
			return "Content-Type: text/plain; charset=utf-16le\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64(strings.Join(strings.Split(w.par(), ""), "\x00")+"\x00")
		}},
		{"cyrillic", func(w *writer) string {
			return "Content-Type: text/plain; charset=utf-8\r\n\r\nДобрый день, " + w.par() + "До свидания\r\n"
		}},
		{"arabic and emoji", func(w *writer) string {
			return "Content-Type: text/plain; charset=utf-8\r\n\r\nمرحبا 🎉🎉 " + w.par()
		}},
		{"file name in rfc2231", func(w *writer) string {
			return w.multi("mixed", w.plain(), "Content-Type: application/pdf\r\nContent-Disposition: attachment; filename*0*=utf-8''%C3%BCber; filename*1=sicht.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"+b64("%PDF"))
		}},
		{"file name in encoded word", func(w *writer) string {
			return w.multi("mixed", w.plain(), "Content-Type: application/pdf; name=\"=?utf-8?b?w7xiZXIucGRm?=\"\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\n"+b64("%PDF"))
		}},
		{"archive", func(w *writer) string {
			return w.multi("mixed", w.plain(), w.file("application/zip", "photos.zip", "PK\x03\x04"+w.par()))
		}},
		{"newsletter", func(w *writer) string {
			return "List-Id: <n.example>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nPrecedence: bulk\r\n" + w.multi("alternative", w.plain(),
				"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"+qp("<div style=\"display:none\">preview</div><table><tr><td>"+w.html(w.par(), "track.example")+"<img src=\"https://track.example/o.gif\" width=\"1\" height=\"1\"></td></tr></table>"))
		}},
		{"list footer", func(w *writer) string {
			return w.multi("mixed", w.multi("alternative", w.plain(), w.htmlPart()), "Content-Type: text/plain\r\nContent-Disposition: inline\r\n\r\n_______\r\nlist mailing list\r\nhttp://lists.example/")
		}},
		{"long folded header", func(w *writer) string {
			return "References: " + strings.Repeat("<a.b.c@d.example>\r\n ", 60) + "<e@f.example>\r\n" + w.plain()
		}},
		{"many received", func(w *writer) string {
			return strings.Repeat("Received: from a.example by b.example; Fri, 20 Nov 2026 08:00:00 +0000\r\n", 30) + w.plain()
		}},
		{"long line", func(w *writer) string { return "\r\n" + strings.ReplaceAll(w.par()+w.par(), "\r\n", " ") + "\r\n" }},
		{"empty", func(*writer) string { return "\r\n" }},
		{"delivery receipt", func(w *writer) string {
			return w.multi("report; report-type=disposition-notification", w.plain(), "Content-Type: message/disposition-notification\r\n\r\nDisposition: manual-action/MDN-sent-manually; displayed")
		}},
		{"vcard", func(w *writer) string {
			return w.multi("mixed", w.plain(), w.file("text/vcard", "me.vcf", "BEGIN:VCARD\r\nFN:"+w.pick(names())+"\r\nEND:VCARD"))
		}},
		{"tnef", func(w *writer) string {
			return w.multi("mixed", w.plain(), w.file("application/ms-tnef", "winmail.dat", "\x78\x9f\x3e\x22"))
		}},
	}
}

// broken shapes are as they should not be, and come all the same.
func broken() []shape {
	part := "Content-Type: text/plain\r\n\r\n"
	return []shape{
		{"unclosed", func(w *writer) string {
			return "Content-Type: multipart/mixed; boundary=b1\r\n\r\n--b1\r\n" + part + w.par()
		}},
		{"no boundary parameter", func(w *writer) string {
			return "Content-Type: multipart/mixed\r\n\r\n--x\r\n" + part + w.par() + "\r\n--x--\r\n"
		}},
		{"boundary not quoted", func(w *writer) string {
			return "Content-Type: multipart/mixed; boundary=a b:c\r\n\r\n--a b:c\r\n" + part + w.par() + "\r\n--a b:c--\r\n"
		}},
		{"quote not closed", func(w *writer) string {
			return "Content-Type: multipart/mixed; boundary=\"abc\r\n\r\n--abc\r\n" + part + w.par() + "\r\n--abc--\r\n"
		}},
		{"boundary used twice", func(w *writer) string {
			return "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n" + part + w.par() + "\r\n--b--\r\n--b--\r\n"
		}},
		{"boundary is prefix", func(w *writer) string {
			return "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/alternative; boundary=bb\r\n\r\n--bb\r\n" + part + w.par() + "\r\n--bb--\r\n--b--\r\n"
		}},
		{"part without header", func(w *writer) string {
			return "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + w.par() + "--b--\r\n"
		}},
		{"no parts", func(w *writer) string { return "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + w.par() }},
		{"epilogue with text", func(w *writer) string { return w.multi("mixed", w.plain()) + w.par() }},
		{"base64 with noise", func(w *writer) string {
			return "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n!" + strings.ReplaceAll(b64(w.par()), "\r\n", "*\r\n")
		}},
		{"base64 cut short", func(w *writer) string {
			text := strings.TrimRight(b64(w.par()), "=\r\n")
			return "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + text[:len(text)-1]
		}},
		{"base64 that is text", func(w *writer) string {
			return "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + w.par()
		}},
		{"qp with bad escapes", func(w *writer) string {
			return "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + w.par() + "100=% =ZZ =\r\n"
		}},
		{"unknown charset", func(w *writer) string { return "Content-Type: text/plain; charset=x-unknown-9\r\n\r\n" + w.par() }},
		{"charset lies", func(w *writer) string { return "Content-Type: text/plain; charset=utf-8\r\n\r\nGr\xfc\xdfe " + w.par() }},
		{"8bit without mime", func(w *writer) string { return "\r\nGr\xfc\xdfe " + w.par() }},
		{"8bit in header", func(w *writer) string { return "X-Note: Gr\xfc\xdfe\r\nOrganization: caf\xe9\r\n" + w.plain() }},
		{"unknown encoding", func(w *writer) string {
			return "Content-Type: text/plain\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\n" + w.par()
		}},
		{"uuencoded", func(w *writer) string { return "\r\n" + w.par() + "begin 644 a.txt\r\n#0V%T\r\n`\r\nend\r\n" }},
		{"type is nonsense", func(w *writer) string { return "Content-Type: plain\r\n\r\n" + w.par() }},
		{"type twice", func(w *writer) string { return "Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n" + w.par() }},
		{"header line without colon", func(w *writer) string { return "this is no header\r\n" + w.plain() }},
		{"continuation first", func(w *writer) string { return " continued\r\n" + w.plain() }},
		{"blank in field name", func(w *writer) string { return "Content Type: text/html\r\n" + w.plain() }},
		{"no empty line", func(w *writer) string { return w.sentence(6) + "\r\n" }},
		{"nul bytes", func(w *writer) string { return "\r\nab\x00cd " + w.par() }},
		{"bare line feeds", func(w *writer) string {
			return strings.ReplaceAll(w.multi("mixed", w.plain(), w.htmlPart()), "\r\n", "\n")
		}},
		{"encoded word is broken", func(w *writer) string {
			return "X-A: =?utf-8?q?a\r\nX-B: =?utf-8?b?!!!?=\r\nX-C: =?x-none?q?a?=\r\nX-D: =?utf-8?x?a?=\r\n" + w.plain()
		}},
		{"html unclosed", func(w *writer) string {
			return "Content-Type: text/html\r\n\r\n<html><body><p>" + w.par() + "<a href=\"http://x.example"
		}},
		{"html in plain", func(w *writer) string { return "Content-Type: text/plain\r\n\r\n" + w.html(w.par(), "x.example") }},
		{"rfc822 in base64", func(w *writer) string {
			return w.multi("mixed", w.plain(), "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"+b64("Subject: x\r\n\r\n"+w.par()))
		}},
		{"twenty levels", func(w *writer) string {
			text := w.plain()
			for range 20 {
				text = w.multi("mixed", text)
			}
			return text
		}},
	}
}
