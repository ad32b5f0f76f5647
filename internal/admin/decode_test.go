package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"understudy/smtp/queue"
)

// FuzzDecode feeds requests to the decoder and the checks behind it: no panic, and
// what is accepted is within its bounds and survives a second round unchanged.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "{}", "[]", "null", `{"action":"hold","selection":{"ids":["A1"]},"reason":"x"}`,
		`{"selection":{"min_age":3600000000000,"states":["held"]},"all":true,"dry_run":true}`,
		`{"action":"requeue","to":"smtp://x","all":true}`, `{"selection":{"limit":-1}}`, `{"x":1}`, `{}{}`,
		`{"selection":{"ids":["` + strings.Repeat("A", 65) + `"]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var req ApplyRequest
		if err := decodeStrict(data, &req); err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code != CodeBadRequest {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if err := checkApply(req); err != nil {
			return
		}
		if SelectsAll(req.Selection) && !req.All && req.Action != queue.Flush {
			t.Fatalf("everything is selected without being meant: %s", data)
		}
		for _, id := range req.Selection.IDs {
			if id == "" || len(id) > maxIDBytes || strings.ContainsAny(id, "/.\x00\n ") {
				t.Fatalf("queue id %q", id)
			}
		}
		if strings.ContainsAny(req.To, "\r\n\x00 ") || len(req.Reason) > maxReasonBytes {
			t.Fatalf("accepted %+v", req)
		}
		_ = describeSelection(req.Selection, req.All)
		again, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		var second ApplyRequest
		if err := decodeStrict(again, &second); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if third, err := json.Marshal(second); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%s became %s, %v", again, third, err)
		}
	})
}

func TestDescribeSelection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sel  Selection
		all  bool
		want string
	}{
		{Selection{}, true, "all"},
		{Selection{Domain: "example.com", MinAge: time.Hour}, false, `{"domain":"example.com","min_age":3600000000000}`},
		{Selection{IDs: []string{"A", "B", "C", "D", "E"}}, false, `{"ids":["A","B","C"]} and 2 more ids`},
	} {
		if got := describeSelection(tt.sel, tt.all); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}
