package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"understudy/smtp/queue"
)

func TestRoutes(t *testing.T) {
	t.Parallel()
	huge := `{"ids":["` + strings.Repeat("A", maxRequestBytes) + `"]}`
	tests := []struct {
		name, method, path, body string
		status                   int
		code                     string // of the error, or a part of the answer
	}{
		{"status", "GET", "/v1/status", "", 200, `"site":"b"`},
		{"status has a list of alarms", "GET", "/v1/status", "", 200, `"alarms":[]`},
		{"list all", "POST", "/v1/queue/list", "{}", 200, `"id":"M000002"`},
		{"list without body", "POST", "/v1/queue/list", "", 200, `"id":"M000000"`},
		{"list none", "POST", "/v1/queue/list", `{"sender":"nobody@*"}`, 200, "[\n]"},
		{"list wrong method", "GET", "/v1/queue/list", "", 405, CodeMethod},
		{"list unknown field", "POST", "/v1/queue/list", `{"sendr":"a"}`, 400, `unknown field \"sendr\"`},
		{"list wrong type", "POST", "/v1/queue/list", `{"limit":"3"}`, 400, CodeBadRequest},
		{"list not an object", "POST", "/v1/queue/list", `[]`, 400, CodeBadRequest},
		{"list two objects", "POST", "/v1/queue/list", `{}{}`, 400, "more than one"},
		{"list cut short", "POST", "/v1/queue/list", `{"ids":[`, 400, CodeBadRequest},
		{"list huge", "POST", "/v1/queue/list", huge, 413, CodeTooLarge},
		{"list bad id", "POST", "/v1/queue/list", `{"ids":["../etc"]}`, 400, "not a queue id"},
		{"list bad state", "POST", "/v1/queue/list", `{"states":["lost"]}`, 400, "unknown state"},
		{"list negative limit", "POST", "/v1/queue/list", `{"limit":-1}`, 400, CodeBadRequest},
		{"list impossible age", "POST", "/v1/queue/list", `{"min_age":5,"max_age":4}`, 400, CodeBadRequest},
		{"show", "GET", "/v1/queue/message/M000001", "", 200, `"envelope"`},
		{"show none", "GET", "/v1/queue/message/M9", "", 404, CodeNotFound},
		{"show bad id", "GET", "/v1/queue/message/M%2f9", "", 400, CodeBadRequest},
		{"show wrong method", "DELETE", "/v1/queue/message/M000001", "", 405, CodeMethod},
		{"body", "GET", "/v1/queue/message/M000001/body", "", 200, "Your code is 000001"},
		{"body none", "GET", "/v1/queue/message/M9/body", "", 404, CodeNotFound},
		{"hold", "POST", "/v1/queue/apply", `{"action":"hold","selection":{"ids":["M000001"]}}`, 200, `"count":1`},
		{"hold twice", "POST", "/v1/queue/apply", `{"action":"hold","selection":{"ids":["M000001"]}}`, 200, `"count":1`},
		{"hold without selection", "POST", "/v1/queue/apply", `{"action":"hold"}`, 400, CodeNoSelection},
		{"delete with a limit alone", "POST", "/v1/queue/apply", `{"action":"delete","selection":{"limit":5}}`, 400, CodeNoSelection},
		{"hold all", "POST", "/v1/queue/apply", `{"action":"hold","all":true,"dry_run":true}`, 200, `"count":3`},
		{"no action", "POST", "/v1/queue/apply", `{"all":true}`, 400, "action is missing"},
		{"bad action", "POST", "/v1/queue/apply", `{"action":"eat","all":true}`, 400, "unknown action"},
		{"to without requeue", "POST", "/v1/queue/apply", `{"action":"hold","all":true,"to":"smtp://x"}`, 400, CodeBadRequest},
		{"to with a line break", "POST", "/v1/queue/apply", `{"action":"requeue","all":true,"to":"smtp://x\r\n"}`, 400, CodeBadRequest},
		{"long reason", "POST", "/v1/queue/apply", `{"action":"hold","all":true,"reason":"` + strings.Repeat("x", 2000) + `"}`, 400, CodeBadRequest},
		{"apply wrong method", "PUT", "/v1/queue/apply", "{}", 405, CodeMethod},
		{"flush nothing", "POST", "/v1/queue/flush", `{"selection":{"sender":"x"}}`, 200, `"total":0`},
		{"flush retry without timeout", "POST", "/v1/queue/flush", `{"retry":true,"selection":{}}`, 400, "timeout"},
		{"flush negative timeout", "POST", "/v1/queue/flush", `{"timeout":-1,"selection":{}}`, 400, "timeout"},
		{"stats", "GET", "/v1/queue/stats", "", 200, `"messages":3`},
		{"stats wrong method", "POST", "/v1/queue/stats", "", 405, CodeMethod},
		{"export", "POST", "/v1/queue/export", `{"selection":{"ids":["M000002"]}}`, 200, "M000002.eml"},
		{"export without selection", "POST", "/v1/queue/export", `{}`, 400, CodeNoSelection},
		{"import garbage", "POST", "/v1/queue/import", strings.Repeat("garbage", 200), 422, CodeBadRequest},
		{"import nothing", "POST", "/v1/queue/import", "", 200, `"count":0`},
		{"search", "POST", "/v1/queue/search", `{"selection":{"recipient":"user2"},"text":true}`, 200, "Your code is 000002"},
		{"search subject", "POST", "/v1/queue/search", `{"selection":{"recipient":"user*"},"subject":"CODE 1"}`, 200, `"matches":1`},
		{"search without selection", "POST", "/v1/queue/search", `{"subject":"x"}`, 400, CodeNoSelection},
		{"rules", "GET", "/v1/queue/rules", "", 200, "[]"},
		{"rule without sender and domain", "POST", "/v1/queue/rules", `{"reason":"x"}`, 400, CodeBadRequest},
		{"remove no rule", "DELETE", "/v1/queue/rules", `{"domain":"none.example"}`, 404, "none.example"},
		{"rules wrong method", "PATCH", "/v1/queue/rules", "", 405, CodeMethod},
		{"hops", "GET", "/v1/hops", "", 200, "[]"},
		{"resume unknown hop", "POST", "/v1/hops/resume", `{"name":"x"}`, 404, CodeNotFound},
		{"resume nothing", "POST", "/v1/hops/resume", `{}`, 400, "name is missing"},
		{"check", "POST", "/v1/recipients/check", `{"address":"a@b"}`, 200, "exists"},
		{"check control characters", "POST", "/v1/recipients/check", `{"address":"a\u001b@b"}`, 400, CodeBadRequest},
		{"approve", "POST", "/v1/recipients/approve", `{"source":"file"}`, 200, "file"},
		{"approve what waits for nothing", "POST", "/v1/recipients/approve", `{"source":"sql"}`, 409, CodeConflict},
		{"approve unknown", "POST", "/v1/recipients/approve", `{"source":"x"}`, 404, CodeNotFound},
		{"unknown path", "GET", "/v2/everything", "", 404, CodeNotFound},
	}
	r := start(t, full(fill(3)))
	for _, tt := range tests {
		status, answer := r.ask(t, tt.method, tt.path, tt.body)
		if status != tt.status || !strings.Contains(answer, tt.code) {
			t.Errorf("%s: got %d %.300s; want %d with %q", tt.name, status, answer, tt.status, tt.code)
		}
		if status >= 400 {
			var e Error
			if err := json.Unmarshal([]byte(answer), &e); err != nil || e.Text == "" || e.Code == "" {
				t.Errorf("%s: error is not JSON with error and code: %s", tt.name, answer)
			}
		}
	}
	if strings.Contains(r.log.String(), "panic") {
		t.Errorf("a request panicked: %s", r.log)
	}
}

// ask sends one raw request.
func (r *running) ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func TestPartsThatAreNotThere(t *testing.T) {
	t.Parallel()
	r := start(t, Deps{})
	for pattern, methods := range r.srv.routes() {
		for method := range methods {
			path := strings.ReplaceAll(pattern, "{id}", "M1")
			status, answer := r.ask(t, method, path, "{}")
			if status != http.StatusNotImplemented || !strings.Contains(answer, CodeNotConfigured) {
				t.Errorf("%s %s: %d %s", method, path, status, answer)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	r := start(t, full(fill(1)))
	for header, want := range map[string]int{"": 200, "1": 200, "7, 1": 200, "7": 400, "x": 400, "0": 400} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/v1/hops", nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			req.Header.Set(VersionHeader, header)
		}
		resp, err := r.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want || resp.Header.Get(VersionHeader) != "1" {
			t.Errorf("version %q: status %d, answer's version %q; want %d", header, resp.StatusCode, resp.Header.Get(VersionHeader), want)
		}
	}
}

func TestClientRoundTrip(t *testing.T) {
	t.Parallel()
	f := fill(5)
	r := start(t, full(f))
	ctx := t.Context()

	var got []queue.Summary
	if err := r.List(ctx, Selection{}, func(m queue.Summary) error { got = append(got, m); return nil }); err != nil {
		t.Fatal(err)
	}
	want, _ := f.List(ctx, Selection{})
	if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("list: %s", diff)
	}
	d, err := r.Show(ctx, "M000003")
	if err != nil || d.ID != "M000003" || d.Envelope == nil {
		t.Errorf("show: %+v, %v", d, err)
	}
	if _, err := r.Show(ctx, "M9"); err == nil || !strings.Contains(err.Error(), "M9") {
		t.Errorf("show of nothing: %v; the error must name the id", err)
	}
	body, err := r.Body(ctx, "M000003")
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(body)
	_ = body.Close()
	if !bytes.HasSuffix(data, []byte("Your code is 000003\r\n")) {
		t.Errorf("body: %q", data)
	}
	rules, err := r.AddRule(ctx, queue.HoldRule{Domain: "example.com", Reason: "migration"})
	if err != nil || len(rules) != 1 {
		t.Errorf("add rule: %v, %v", rules, err)
	}
	rules, err = r.AddRule(ctx, queue.HoldRule{Domain: "EXAMPLE.com", Reason: "still"})
	if err != nil || len(rules) != 1 || rules[0].Reason != "still" {
		t.Errorf("add the same rule: %v, %v", rules, err)
	}
	if rules, err = r.RemoveRule(ctx, queue.HoldRule{Domain: "example.com"}); err != nil || len(rules) != 0 {
		t.Errorf("remove rule: %v, %v", rules, err)
	}

	var tar bytes.Buffer
	if err := r.Export(ctx, ExportRequest{All: true}, &tar); err != nil {
		t.Fatal(err)
	}
	if ch, err := r.Apply(ctx, ApplyRequest{Action: queue.Delete, All: true}); err != nil || ch.Count != 5 {
		t.Fatalf("delete: %+v, %v", ch, err)
	}
	if ch, err := r.Import(ctx, &tar); err != nil || ch.Count != 5 {
		t.Fatalf("import: %+v, %v", ch, err)
	}
	back, _ := f.List(ctx, Selection{})
	if diff := cmp.Diff(want, back, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("after export, delete and import: %s", diff)
	}
}

func TestBodyAccessIsOffUntilAllowed(t *testing.T) {
	t.Parallel()
	deps := full(fill(2))
	deps.AllowBody = nil
	r := start(t, deps)
	for _, q := range []struct{ method, path, body string }{
		{"GET", "/v1/queue/message/M000001/body", ""},
		{"POST", "/v1/queue/export", `{"all":true}`},
		{"POST", "/v1/queue/search", `{"selection":{"recipient":"user1"}}`},
	} {
		status, answer := r.ask(t, q.method, q.path, q.body)
		if status != http.StatusForbidden || !strings.Contains(answer, "queue.allow_body_access") {
			t.Errorf("%s: %d %s", q.path, status, answer)
		}
		if strings.Contains(answer, "Your code") {
			t.Errorf("%s: the body came with the refusal", q.path)
		}
	}
	// Attempts are worth knowing of too.
	if n := strings.Count(r.log.String(), "msg=audit"); n != 3 {
		t.Errorf("%d audit lines, want 3: %s", n, r.log)
	}
}

func TestAudit(t *testing.T) {
	t.Parallel()
	r := start(t, full(fill(3)))
	ctx := t.Context()
	uid := fmt.Sprintf("uid=%d", os.Getuid())
	steps := []struct {
		do   func() error
		want []string // of the last audit line; nil: none is written
	}{
		{func() error { return r.List(ctx, Selection{}, func(queue.Summary) error { return nil }) }, nil},
		{func() error { _, err := r.Show(ctx, "M000001"); return err }, nil},
		{func() error {
			_, err := r.Apply(ctx, ApplyRequest{Action: queue.Delete, All: true, ApplyOptions: queue.ApplyOptions{DryRun: true}})
			return err
		}, nil},
		{func() error {
			_, err := r.Apply(ctx, ApplyRequest{Action: queue.Hold, Selection: Selection{Domain: "example.com"}, ApplyOptions: queue.ApplyOptions{Reason: "legal"}})
			return err
		}, []string{"action=hold", uid, "count=3", "example.com", "reason=legal", "M000002", "pid="}},
		{func() error {
			b, err := r.Body(ctx, "M000001")
			if err == nil {
				_, _ = io.Copy(io.Discard, b)
				err = b.Close()
			}
			return err
		}, []string{"action=read_body", uid, "M000001"}},
		{func() error {
			_, err := r.Search(ctx, SearchRequest{Selection: Selection{Recipient: "user1"}}, func(SearchHit) error { return nil })
			return err
		}, []string{"action=search", uid, "M000001", "matches=1", "user1@*"}},
		{func() error { return r.Export(ctx, ExportRequest{All: true}, io.Discard) }, []string{"action=export", uid, "count=3", "selection=all"}},
		{func() error { _, err := r.AddRule(ctx, queue.HoldRule{Sender: "x@y"}); return err }, []string{"action=add_rule", uid, "x@y"}},
		{func() error { return r.ApproveRecipients(ctx, "file") }, []string{"action=approve_recipients", uid, "file"}},
	}
	for i, s := range steps {
		before := strings.Count(r.log.String(), "msg=audit")
		if err := s.do(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if s.want == nil {
			if got := strings.Count(r.log.String(), "msg=audit"); got != before {
				t.Errorf("step %d wrote an audit line: %s", i, r.log)
			}
			continue
		}
		eventually(t, "audit line", func() bool { return strings.Count(r.log.String(), "msg=audit") == before+1 })
		lines := strings.Split(strings.TrimSpace(r.log.String()), "\n")
		for _, w := range s.want {
			if !strings.Contains(lines[len(lines)-1], w) {
				t.Errorf("step %d: audit line lacks %q: %s", i, w, lines[len(lines)-1])
			}
		}
	}
}

// brokenQueue fails in the middle of what it does.
type brokenQueue struct {
	*Fake
	panics bool
}

func (b brokenQueue) Body(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x", 200_000)), errReader{})), nil
}

func (b brokenQueue) Stats(context.Context) (queue.Stats, error) {
	if b.panics {
		panic("boom")
	}
	return queue.Stats{}, errors.New("disk on fire")
}

func (b brokenQueue) Apply(context.Context, queue.Action, queue.Selection, queue.ApplyOptions) (queue.Change, error) {
	return queue.Change{IDs: []string{"M000000"}, Count: 1}, errors.New("disk on fire")
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("damaged") }

func TestFailuresInTheMiddle(t *testing.T) {
	t.Parallel()
	deps := full(fill(1))
	deps.Queue = brokenQueue{Fake: fill(1)}
	r := start(t, deps)
	body, err := r.Body(t.Context(), "M000000")
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, body)
	_ = body.Close()
	if err == nil {
		t.Errorf("a body that broke off after %d bytes looks whole", n)
	}
	ch, err := r.Apply(t.Context(), ApplyRequest{Action: queue.Hold, All: true})
	if err == nil || ch.Count != 1 || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("partial change: %+v, %v", ch, err)
	}
	if _, err := r.Stats(t.Context()); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("stats: %v", err)
	}
	deps.Queue = brokenQueue{Fake: fill(1), panics: true}
	r = start(t, deps)
	var e *Error
	if _, err := r.Stats(t.Context()); !errors.As(err, &e) || e.Code != CodeInternal {
		t.Errorf("panic became %v", err)
	}
	if _, err := r.Show(t.Context(), "M000000"); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	f := fill(0)
	r := start(t, full(f))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var kinds []queue.Kind
	err := r.Watch(ctx, func() {
		f.Add(queue.Summary{ID: "A"}, nil)
		_, _ = f.Apply(ctx, queue.Hold, Selection{IDs: []string{"A"}}, queue.ApplyOptions{})
	},
		func(ev queue.Event) error {
			kinds = append(kinds, ev.Kind)
			if len(kinds) == 2 {
				cancel()
			}
			return nil
		})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
	if diff := cmp.Diff([]queue.Kind{queue.EventQueued, queue.EventHeld}, kinds); diff != "" {
		t.Error(diff)
	}
	eventually(t, "unsubscribed", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.watchers) == 0 })
}

func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	r := start(t, full(fill(0)))
	ready := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- r.Watch(context.Background(), func() { close(ready) }, func(queue.Event) error { return nil })
	}()
	<-ready
	if err := r.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := <-done; err == nil {
		t.Error("the watcher was not told that the daemon stops")
	}
	if _, err := os.Lstat(r.cfg.Socket); !os.IsNotExist(err) {
		t.Errorf("socket is still there: %v", err)
	}
	if _, err := r.Stats(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("after stop: %v", err)
	}
}

func TestClientOfSomethingElse(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	c := NewClient(path)
	if _, err := c.Stats(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no socket: %v", err)
	}
	ln, err := net.Listen("unix", path) //nolint:noctx // in a test
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	if _, err := c.Stats(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "not understudy") {
		t.Errorf("another server: %v", err)
	}
	c.Close()
}
