package message

import (
	"bytes"
	"mime"
	"strings"
)

// describe fills part from its header and returns the boundary of a multipart.
func (p *parser) describe(part *Part, fields []Field) (boundary string) {
	part.Type = "text/plain"
	for _, f := range fields {
		switch {
		case strings.EqualFold(f.Name, "Content-Type"):
			media, params, ok := parseParams(f.Value)
			if !ok || !strings.Contains(media, "/") {
				p.m.fault(BadType)
				if !strings.Contains(media, "/") {
					continue
				}
			}
			part.Type = media
			part.Charset = strings.ToLower(params["charset"])
			boundary = params["boundary"]
			if part.Name == "" {
				part.Name = DecodeHeader(params["name"])
			}
		case strings.EqualFold(f.Name, "Content-Disposition"):
			kind, params, _ := parseParams(f.Value)
			part.Attachment = kind == "attachment"
			if name := params["filename"]; name != "" {
				part.Name = DecodeHeader(name)
			}
		case strings.EqualFold(f.Name, "Content-Transfer-Encoding"):
			enc, _, _ := strings.Cut(strings.ToLower(f.Value), ";")
			switch enc = strings.TrimSpace(enc); enc {
			case "7bit", "8bit", "binary", "":
			case "base64", "quoted-printable":
				part.Encoding = enc
			default:
				p.m.fault(BadEncoding)
			}
		}
	}
	if part.Type == "multipart/digest" {
		// Its parts are messages unless they say otherwise; they rarely carry more
		// than text, and that is how they are read here.
		return boundary
	}
	return boundary
}

// parseParams reads "value; name=value". Where the strict reading fails (false) a
// lenient one takes what it can, as mail programs do.
func parseParams(s string) (value string, params map[string]string, strict bool) {
	if len(s) > 4<<10 {
		s = s[:4<<10]
	}
	value, params, err := mime.ParseMediaType(s)
	if err == nil {
		return value, params, true
	}
	head, rest, _ := strings.Cut(s, ";")
	value = strings.ToLower(strings.TrimSpace(head))
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		value = value[:i]
	}
	params = make(map[string]string)
	for rest != "" {
		var name, v string
		name, rest, _ = strings.Cut(rest, "=")
		name = strings.ToLower(strings.Trim(name, " \t;"))
		rest = strings.TrimLeft(rest, " \t")
		if strings.HasPrefix(rest, `"`) {
			v, rest, _ = strings.Cut(rest[1:], `"`)
			_, rest, _ = strings.Cut(rest, ";")
		} else {
			v, rest, _ = strings.Cut(rest, ";")
			v = strings.TrimSpace(v)
		}
		name, _, _ = strings.Cut(name, "*")
		if _, there := params[name]; !there && name != "" {
			params[name] = v
		}
	}
	return value, params, false
}

// decodeTransfer undoes a transfer encoding, leniently; faults go to m.
func decodeTransfer(m *Message, encoding string, raw []byte) []byte {
	switch encoding {
	case "base64":
		return decodeBase64(m, raw)
	case "quoted-printable":
		return decodeQP(m, raw)
	}
	return raw
}

// decodeBase64 skips what is no base64 (RFC 2045, section 6.8) and ignores
// missing padding. Padding in the middle starts a new group.
func decodeBase64(m *Message, raw []byte) []byte {
	out := make([]byte, 0, len(raw)/4*3)
	var acc uint32
	bits := 0
	bad := false
	for _, c := range raw {
		var v byte
		switch {
		case c >= 'A' && c <= 'Z':
			v = c - 'A'
		case c >= 'a' && c <= 'z':
			v = c - 'a' + 26
		case c >= '0' && c <= '9':
			v = c - '0' + 52
		case c == '+' || c == '-':
			v = 62
		case c == '/' || c == '_':
			v = 63
		case c == '=':
			acc, bits = 0, 0
			continue
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		default:
			bad = true
			continue
		}
		acc = acc<<6 | uint32(v)
		if bits += 6; bits >= 8 {
			bits -= 8
			out = append(out, byte(acc>>bits))
		}
	}
	if bad {
		m.fault(BadBase64)
	}
	return out
}

// decodeQP leaves malformed escapes as they are (RFC 2045, section 6.7).
func decodeQP(m *Message, raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c != '=' {
			out = append(out, c)
			continue
		}
		rest := raw[i+1:]
		if len(rest) >= 2 && isHex(rest[0]) && isHex(rest[1]) {
			out = append(out, unhex(rest[0])<<4|unhex(rest[1]))
			i += 2
			continue
		}
		// A soft line break, perhaps with white space before the line's end.
		blank := len(rest) - len(bytes.TrimLeft(rest, " \t"))
		switch tail := rest[blank:]; {
		case len(tail) == 0:
			i += blank
		case tail[0] == '\n':
			i += blank + 1
		case len(tail) > 1 && tail[0] == '\r' && tail[1] == '\n':
			i += blank + 2
		default:
			m.fault(BadQP)
			out = append(out, c)
		}
	}
	return out
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
