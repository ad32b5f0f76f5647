package message

import (
	"bytes"
	"strings"

	"golang.org/x/net/html"
)

// HTML says what is peculiar about HTML.
type HTML struct {
	// Parts counts the HTML parts.
	Parts int
	// Images, Links, Forms and Scripts count elements.
	Images, Links, Forms, Scripts int
	// TinyImages are images of at most 1 pixel.
	TinyImages int
	// Hidden counts elements whose style hides their text.
	Hidden int
	// Mismatched counts links whose text shows one host and whose target is another.
	Mismatched int
	// DataURLs counts "data:" links and images.
	DataURLs int
	// TextBytes is the length of the visible text.
	TextBytes int
}

// renderer turns HTML into text.
type renderer struct {
	h    *HTML
	out  *strings.Builder
	urls *urlSet
	skip string // the element whose content is no text
	// href is the target of the open link, link its text.
	href string
	link strings.Builder
	open bool
	// space: the last byte written is white space.
	space bool
}

// render appends the text of source to out, and its links to urls.
func (h *HTML) render(source string, out *strings.Builder, urls *urlSet) {
	r := &renderer{h: h, out: out, urls: urls, space: true}
	before := out.Len()
	z := html.NewTokenizer(strings.NewReader(source))
	z.SetMaxBuf(max(len(source), 1))
	for {
		switch z.Next() {
		case html.ErrorToken:
			r.endLink()
			h.TextBytes += out.Len() - before
			return
		case html.TextToken:
			if r.skip == "" {
				r.text(string(z.Text()))
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name, more := z.TagName()
			r.start(string(name), z, more)
		case html.EndTagToken:
			name, _ := z.TagName()
			r.end(string(name))
		case html.CommentToken, html.DoctypeToken:
		}
	}
}

func (r *renderer) text(s string) {
	r.urls.find(s)
	for _, c := range s {
		switch c {
		case ' ', '\t', '\r', '\n', '\u00a0', '\u200b', '\u200c', '\u200d', '\u00ad', '\ufeff':
			if c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\u00a0' {
				r.blank(' ')
			}
		default:
			r.out.WriteRune(c)
			r.space = false
		}
	}
	if r.open && r.link.Len() < 512 {
		r.link.WriteString(s)
	}
}

func (r *renderer) blank(c byte) {
	if !r.space {
		r.out.WriteByte(c)
		r.space = true
	}
}

func (r *renderer) start(name string, z *html.Tokenizer, more bool) {
	var href, src, style, width, height string
	for more {
		var key, value []byte
		key, value, more = z.TagAttr()
		switch string(key) {
		case "href", "action":
			href = string(value)
		case "src", "background":
			src = string(value)
		case "style":
			style = string(bytes.ToLower(value))
		case "width":
			width = string(value)
		case "height":
			height = string(value)
		}
	}
	for _, u := range []string{href, src} {
		if u = strings.TrimSpace(u); len(u) > 5 && strings.EqualFold(u[:5], "data:") {
			r.h.DataURLs++
		} else {
			r.urls.add(u)
		}
	}
	if hides(style) {
		r.h.Hidden++
	}
	switch name {
	case "script":
		r.h.Scripts++
		r.skip = name
	case "style", "title", "noscript", "template":
		r.skip = name
	case "img":
		r.h.Images++
		if tiny(width) && tiny(height) {
			r.h.TinyImages++
		}
	case "form":
		r.h.Forms++
	case "a":
		r.endLink()
		r.h.Links++
		r.href, r.open = href, true
	case "br", "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "blockquote", "hr":
		r.blank('\n')
	case "td", "th":
		r.blank(' ')
	}
}

func (r *renderer) end(name string) {
	if name == r.skip {
		r.skip = ""
	}
	switch name {
	case "a":
		r.endLink()
	case "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "table", "blockquote":
		r.blank('\n')
	}
}

// endLink compares a link's text with its target.
func (r *renderer) endLink() {
	if !r.open {
		return
	}
	text := strings.TrimSpace(r.link.String())
	r.link.Reset()
	r.open = false
	shown := newURLSet(1)
	shown.find(text)
	target := newURLSet(1)
	target.add(r.href)
	if len(shown.list) == 1 && len(target.list) == 1 && strings.HasPrefix(text, shown.list[0].Raw) &&
		!related(shown.list[0].Host, target.list[0].Host) {
		r.h.Mismatched++
	}
}

// related reports whether one host is, or is below, the other's domain.
func related(a, b string) bool {
	a, b = strings.TrimPrefix(a, "www."), strings.TrimPrefix(b, "www.")
	return a == b || strings.HasSuffix(a, "."+b) || strings.HasSuffix(b, "."+a)
}

// hides reports whether a style hides text.
func hides(style string) bool {
	if style == "" {
		return false
	}
	style = strings.NewReplacer(" ", "", "\t", "", "\n", "").Replace(style)
	for _, s := range []string{"display:none", "visibility:hidden", "font-size:0", "font-size:1px", "opacity:0;", "max-height:0", "text-indent:-9"} {
		if strings.Contains(style, s) {
			return true
		}
	}
	return false
}

func tiny(size string) bool {
	return size == "0" || size == "1" || size == "0px" || size == "1px"
}
