package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"understudy/smtp/queue"
)

// maxLineBytes bounds one line of a stream, maxErrorBytes an error's JSON.
const (
	maxLineBytes  = 64 << 20
	maxErrorBytes = 16 << 20
)

// Client asks a daemon on its socket. Its methods may be called concurrently.
// They return an *Error where the daemon said no, and ErrUnreachable where none
// answered.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client for the socket at path; it does not connect.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{socket: path, http: &http.Client{Transport: &http.Transport{
		DialContext:        dial,
		DisableCompression: true,
		WriteBufferSize:    streamBuffer,
		ReadBufferSize:     streamBuffer,
	}}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Socket is the path the client asks at.
func (c *Client) Socket() string { return c.socket }

// Status returns the daemon's state.
func (c *Client) Status(ctx context.Context) (StatusReport, error) {
	var out StatusReport
	return out, c.call(ctx, http.MethodGet, "/v1/status", nil, &out)
}

// List calls fn for every selected message, oldest first, as it comes in.
func (c *Client) List(ctx context.Context, sel Selection, fn func(queue.Summary) error) error {
	body, err := c.stream(ctx, http.MethodPost, "/v1/queue/list", sel)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return readList(body, fn)
}

// ListJSON copies the JSON array of the selected messages to w as it comes in.
func (c *Client) ListJSON(ctx context.Context, sel Selection, w io.Writer) error {
	body, err := c.stream(ctx, http.MethodPost, "/v1/queue/list", sel)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	end := &tail{}
	if _, err := io.Copy(io.MultiWriter(w, end), body); err != nil {
		return cutShort("listing", err)
	}
	if end.last != ']' {
		return cutShort("listing", io.ErrUnexpectedEOF)
	}
	return nil
}

// tail remembers the last byte that is not white space.
type tail struct{ last byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	if q := bytes.TrimRight(p, " \r\n"); len(q) > 0 {
		t.last = q[len(q)-1]
	}
	return len(p), nil
}

// Show returns all about one message.
func (c *Client) Show(ctx context.Context, id string) (queue.Detail, error) {
	var out queue.Detail
	if err := checkID(id); err != nil {
		return out, err
	}
	return out, c.call(ctx, http.MethodGet, "/v1/queue/message/"+url.PathEscape(id), nil, &out)
}

// Body returns the stored bytes of one message; the caller closes them. A read
// error says that they were cut short.
func (c *Client) Body(ctx context.Context, id string) (io.ReadCloser, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	return c.stream(ctx, http.MethodGet, "/v1/queue/message/"+url.PathEscape(id)+"/body", nil)
}

// Apply does req. Where the action failed in the middle, the Change says what was
// done before the error.
func (c *Client) Apply(ctx context.Context, req ApplyRequest) (queue.Change, error) {
	var out queue.Change
	err := c.call(ctx, http.MethodPost, "/v1/queue/apply", req, &out)
	return partly(out, err)
}

// partly takes the change out of an error that has one.
func partly(out queue.Change, err error) (queue.Change, error) {
	var e *Error
	if errors.As(err, &e) && e.Change != nil {
		return *e.Change, err
	}
	return out, err
}

// Flush flushes and calls fn for each line but an error; it returns after the end.
func (c *Client) Flush(ctx context.Context, req FlushRequest, fn func(FlushLine) error) error {
	ended := false
	err := lines(ctx, c, http.MethodPost, "/v1/queue/flush", req, func(l FlushLine) error {
		if l.Error != nil {
			return l.Error
		}
		ended = ended || l.End != nil
		return fn(l)
	})
	if err == nil && !ended {
		return cutShort("flush report", io.ErrUnexpectedEOF)
	}
	return err
}

// Stats counts the queue.
func (c *Client) Stats(ctx context.Context) (queue.Stats, error) {
	var out queue.Stats
	return out, c.call(ctx, http.MethodGet, "/v1/queue/stats", nil, &out)
}

// Watch calls fn for each event until ctx ends or the daemon stops; ready is
// called once nothing will be missed any more, and may be nil.
func (c *Client) Watch(ctx context.Context, ready func(), fn func(queue.Event) error) error {
	body, err := c.stream(ctx, http.MethodGet, "/v1/queue/events", nil)
	if err != nil {
		return err
	}
	if ready != nil {
		ready()
	}
	return readLines(ctx, body, func(l EventLine) error {
		if l.Error != nil {
			return l.Error
		}
		if l.Event == nil {
			return nil
		}
		return fn(*l.Event)
	})
}

// Export copies the selected messages as a tar stream to w. Without its trailer
// (the error says so) the stream is not whole.
func (c *Client) Export(ctx context.Context, req ExportRequest, w io.Writer) error {
	body, err := c.stream(ctx, http.MethodPost, "/v1/queue/export", req)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if _, err := io.Copy(w, body); err != nil {
		return cutShort("export", err)
	}
	return nil
}

// Import queues the messages of a tar stream. Where it failed in the middle, the
// Change says what was queued before the error.
func (c *Client) Import(ctx context.Context, r io.Reader) (queue.Change, error) {
	var out queue.Change
	body, err := c.do(ctx, http.MethodPost, "/v1/queue/import", "application/x-tar", r)
	if err != nil {
		return partly(out, err)
	}
	return out, decodeAnswer(body, &out)
}

// Search calls fn for each match, newest first, and returns the totals.
func (c *Client) Search(ctx context.Context, req SearchRequest, fn func(SearchHit) error) (SearchEnd, error) {
	var end *SearchEnd
	err := lines(ctx, c, http.MethodPost, "/v1/queue/search", req, func(l SearchLine) error {
		switch {
		case l.Error != nil:
			return l.Error
		case l.End != nil:
			end = l.End
		case l.Hit != nil:
			return fn(*l.Hit)
		}
		return nil
	})
	if err == nil && end == nil {
		err = cutShort("search", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return SearchEnd{}, err
	}
	return *end, nil
}

// Rules lists the hold rules.
func (c *Client) Rules(ctx context.Context) ([]queue.HoldRule, error) {
	var out []queue.HoldRule
	return out, c.call(ctx, http.MethodGet, "/v1/queue/rules", nil, &out)
}

// AddRule adds a hold rule, or changes the reason of the one for the same mail;
// it returns all.
func (c *Client) AddRule(ctx context.Context, rule queue.HoldRule) ([]queue.HoldRule, error) {
	var out []queue.HoldRule
	return out, c.call(ctx, http.MethodPost, "/v1/queue/rules", rule, &out)
}

// RemoveRule removes a hold rule and returns the others.
func (c *Client) RemoveRule(ctx context.Context, rule queue.HoldRule) ([]queue.HoldRule, error) {
	var out []queue.HoldRule
	return out, c.call(ctx, http.MethodDelete, "/v1/queue/rules", rule, &out)
}

// Hops lists the next hops.
func (c *Client) Hops(ctx context.Context) ([]Hop, error) {
	var out []Hop
	return out, c.call(ctx, http.MethodGet, "/v1/hops", nil, &out)
}

// ResumeHop ends a next hop's pause and returns all hops.
func (c *Client) ResumeHop(ctx context.Context, name string) ([]Hop, error) {
	var out []Hop
	return out, c.call(ctx, http.MethodPost, "/v1/hops/resume", HopRequest{Name: name}, &out)
}

// CheckRecipient says what RCPT would be answered for address, and why.
func (c *Client) CheckRecipient(ctx context.Context, address string) (RecipientAnswer, error) {
	var out RecipientAnswer
	return out, c.call(ctx, http.MethodPost, "/v1/recipients/check", RecipientRequest{Address: address}, &out)
}

// ApproveRecipients believes a source's far smaller result.
func (c *Client) ApproveRecipients(ctx context.Context, source string) error {
	return c.call(ctx, http.MethodPost, "/v1/recipients/approve", SourceRequest{Source: source}, nil)
}

// call asks with in as JSON (nil: no body) and decodes the answer into out (nil:
// ignored).
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := c.stream(ctx, method, path, in)
	if err != nil {
		return err
	}
	return decodeAnswer(body, out)
}

// decodeAnswer decodes and closes body.
func decodeAnswer(body io.ReadCloser, out any) error {
	defer func() { _ = body.Close() }()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return cutShort("answer", err)
	}
	return nil
}

// stream asks and returns the answer's body.
func (c *Client) stream(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var r io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		r = bytes.NewReader(data)
	}
	return c.do(ctx, method, path, "application/json", r)
}

func (c *Client) do(ctx context.Context, method, path, contentType string, r io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://understudy"+path, r)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	req.Header.Set(VersionHeader, strconv.Itoa(APIVersion))
	if r != nil {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, op)
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("ask daemon: %w", context.Cause(ctx))
		}
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if resp.Header.Get(VersionHeader) == "" {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w: what listens on %s is not understudy", ErrUnreachable, c.socket)
	}
	if resp.StatusCode/100 == 2 {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	e := &Error{}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	if err != nil || json.Unmarshal(data, e) != nil || e.Text == "" {
		e = &Error{Code: CodeInternal, Text: "daemon answered " + strings.ToLower(resp.Status)}
	}
	e.Status = resp.StatusCode
	return nil, e
}

// lines asks and calls fn for each line of the answer.
func lines[T any](ctx context.Context, c *Client, method, path string, in any, fn func(T) error) error {
	body, err := c.stream(ctx, method, path, in)
	if err != nil {
		return err
	}
	return readLines(ctx, body, fn)
}

// readLines decodes and closes body.
func readLines[T any](ctx context.Context, body io.ReadCloser, fn func(T) error) error {
	defer func() { _ = body.Close() }()
	sc := bufio.NewScanner(body)
	sc.Buffer(make([]byte, 0, streamBuffer), maxLineBytes)
	for sc.Scan() {
		var l T
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			return cutShort("stream", err)
		}
		if err := fn(l); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := sc.Err(); err != nil {
		return cutShort("stream", err)
	}
	return nil
}

// cutShort says that an answer ended before its end.
func cutShort(what string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s: %w", what, err)
}
