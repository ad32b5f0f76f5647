package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // registers the character sets of old mail
	"golang.org/x/net/html"
)

// The bounds of what a search reads of one message.
const (
	searchReadBytes = 1 << 20
	searchTextBytes = 64 << 10
	maxDepth        = 8
	maxParts        = 100
	maxSubjectBytes = 1 << 10
)

// searchMessages looks into waiting messages, newest first.
func (s *Server) searchMessages(w http.ResponseWriter, r *http.Request) (err error) {
	if s.deps.Queue == nil {
		return notConfigured("a queue")
	}
	var req SearchRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := checkSelection(req.Selection); err != nil {
		return err
	}
	if len(req.Subject) > maxSubjectBytes {
		return badRequest("subject of %d bytes, at most %d", len(req.Subject), maxSubjectBytes)
	}
	sel := req.Selection
	sel.Recipient = recipientPattern(sel.Recipient)
	if SelectsAll(sel) {
		return &Error{Status: http.StatusBadRequest, Code: CodeNoSelection, Text: "no selection: name a recipient, messages or filters"}
	}
	limit := sel.Limit
	sel.Limit = 0 // the newest are wanted
	var opened []string
	end := SearchEnd{}
	defer func() {
		s.audit(r.Context(), "search", opened, end.Opened, err, auditSelection(sel, false),
			slog.String("subject", req.Subject), slog.Int("matches", end.Matches))
	}()
	if err := s.mayRead(); err != nil {
		return err
	}
	list, err := s.deps.Queue.List(r.Context(), sel)
	if err != nil {
		return queueError(err, "")
	}
	slices.Reverse(list)
	out := newStream(w, "application/x-ndjson")
	for i := range list {
		if limit > 0 && end.Matches >= limit {
			break
		}
		hit := SearchHit{Summary: list[i]}
		matches, err := s.look(r.Context(), &hit, req)
		if err != nil {
			out.fail(func(e *Error) any { return SearchLine{Error: e} }, queueError(err, list[i].ID))
			return err
		}
		end.Opened++
		if len(opened) < auditIDs {
			opened = append(opened, list[i].ID)
		}
		if !matches {
			continue
		}
		end.Matches++
		if err := out.line(SearchLine{Hit: &hit}); err != nil {
			return err
		}
	}
	if err := out.line(SearchLine{End: &end}); err != nil {
		return err
	}
	return out.flush()
}

// recipientPattern lets a bare local part mean it at any domain.
func recipientPattern(p string) string {
	if p == "" || strings.Contains(p, "@") {
		return p
	}
	return p + "@*"
}

// look opens one message, fills in hit, and says whether it matches. A message
// that has left the queue meanwhile does not match.
func (s *Server) look(ctx context.Context, hit *SearchHit, req SearchRequest) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	body, err := s.deps.Queue.Body(ctx, hit.ID)
	if err != nil {
		e := asError(queueError(err, hit.ID))
		if e.Code == CodeNotFound {
			return false, nil
		}
		if e.Code == CodeInternal { // damaged: the operator wants to know it exists
			hit.Problem = err.Error()
			return req.Subject == "", nil
		}
		return false, err
	}
	defer func() { _ = body.Close() }()
	readMessage(hit, io.LimitReader(body, searchReadBytes), req.Text)
	return strings.Contains(strings.ToLower(hit.Subject), strings.ToLower(req.Subject)), nil
}

// readMessage fills in what is readable of a message, whatever its shape.
func readMessage(hit *SearchHit, r io.Reader, text bool) {
	m, err := message.Read(bufio.NewReader(r))
	if m == nil {
		hit.Problem = fmt.Sprintf("no readable header: %v", err)
		return
	}
	field := func(key string) string {
		v, err := m.Header.Text(key)
		if err != nil {
			return m.Header.Get(key)
		}
		return v
	}
	hit.From, hit.To, hit.Date, hit.Subject = field("From"), field("To"), field("Date"), field("Subject")
	if !text {
		return
	}
	var plain, rich string
	if err := findText(m, 0, &plain, &rich); err != nil && plain == "" && rich == "" {
		hit.Problem = fmt.Sprintf("no readable text: %v", err)
	}
	hit.Text = plain
	if hit.Text == "" {
		hit.Text = rich
	}
	if len(hit.Text) > searchTextBytes {
		hit.Text, hit.Truncated = strings.ToValidUTF8(hit.Text[:searchTextBytes], ""), true
	}
}

// findText fills in the first plain and the first HTML part. It does not follow
// nested parts below maxDepth: each level reads through all above it, so that a
// small message built for that would take minutes.
func findText(e *message.Entity, depth int, plain, rich *string) error {
	mr := e.MultipartReader()
	if mr == nil {
		kind, _, _ := e.Header.ContentType() // a broken one is as good as none
		switch {
		case kind == "text/html" && *rich == "":
			*rich = htmlText(e.Body)
		case (kind == "text/plain" || kind == "") && *plain == "":
			*plain = readText(e.Body)
		}
		return nil
	}
	if depth >= maxDepth {
		return fmt.Errorf("more than %d nested parts", maxDepth)
	}
	for range maxParts {
		part, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if part == nil {
			return err
		}
		if err := findText(part, depth+1, plain, rich); err != nil {
			return err
		}
		if *plain != "" {
			return nil
		}
	}
	return nil
}

// readText reads a little more than is shown; what fails in the middle is cut.
func readText(r io.Reader) string {
	var b strings.Builder
	_, _ = io.Copy(&b, io.LimitReader(r, searchTextBytes+1)) // a broken encoding ends the text there
	return strings.TrimSpace(strings.ReplaceAll(b.String(), "\r\n", "\n"))
}

// htmlText is the text between the tags, one line a block.
func htmlText(r io.Reader) string {
	z := html.NewTokenizer(io.LimitReader(r, searchReadBytes))
	z.SetMaxBuf(searchReadBytes)
	var b strings.Builder
	hidden := 0
	for b.Len() <= searchTextBytes {
		kind := z.Next()
		name, _ := z.TagName()
		switch kind {
		case html.ErrorToken:
			if errors.Is(z.Err(), html.ErrBufferExceeded) {
				b.WriteString("\n...")
			}
			return tidy(b.String())
		case html.StartTagToken:
			if invisible(string(name)) {
				hidden++
			}
		case html.EndTagToken:
			if invisible(string(name)) && hidden > 0 {
				hidden--
			}
		case html.TextToken:
			if hidden == 0 {
				b.Write(z.Text())
			}
		case html.SelfClosingTagToken, html.CommentToken, html.DoctypeToken:
		}
		switch string(name) {
		case "p", "br", "div", "tr", "li", "h1", "h2", "h3", "table":
			b.WriteByte('\n')
		}
	}
	return tidy(b.String())
}

func invisible(tag string) bool { return tag == "script" || tag == "style" || tag == "title" }

// tidy collapses the white space of a page: no blank lines, single spaces.
func tidy(s string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(s, "\n") {
		if fields := strings.Fields(line); len(fields) > 0 {
			b.WriteString(strings.Join(fields, " "))
			b.WriteByte('\n')
		}
	}
	return strings.TrimSpace(b.String())
}
