package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"understudy/smtp/queue"
)

// The bounds of what callers send.
const (
	// maxRequestBytes holds a selection of 100,000 ids.
	maxRequestBytes = 8 << 20
	maxReasonBytes  = 1 << 10
	maxPatternBytes = 4 << 10
	maxIDBytes      = 64
)

// decode reads the one JSON object of a request into v, strictly.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return err
		}
		return badRequest("read request: %v", err)
	}
	return decodeStrict(data, v)
}

// decodeStrict decodes data, which must be one JSON object without unknown or
// mistyped fields; an empty request is the empty object.
func decodeStrict(data []byte, v any) error {
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return nil
	}
	if data[0] != '{' {
		return badRequest("request is not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return badRequest("request: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return badRequest("request holds more than one JSON object")
	}
	return nil
}

// checkSelection refuses what cannot be meant.
func checkSelection(sel Selection) error {
	for _, id := range sel.IDs {
		if err := checkID(id); err != nil {
			return err
		}
	}
	for _, p := range []struct{ name, text string }{
		{"sender", sel.Sender},
		{"recipient", sel.Recipient},
		{"domain", sel.Domain},
		{"next_hop", sel.NextHop},
		{"error", sel.Error},
	} {
		if len(p.text) > maxPatternBytes {
			return badRequest("selection: %s of %d bytes, at most %d", p.name, len(p.text), maxPatternBytes)
		}
	}
	for _, st := range sel.States {
		switch st {
		case queue.Queued, queue.Active, queue.Held, queue.Refused:
		default:
			return badRequest("selection: unknown state %q", st)
		}
	}
	switch {
	case sel.MinAge < 0 || sel.MaxAge < 0:
		return badRequest("selection: an age is negative")
	case sel.MinBytes < 0 || sel.MaxBytes < 0:
		return badRequest("selection: a size is negative")
	case sel.Limit < 0:
		return badRequest("selection: limit is negative")
	case sel.MaxAge > 0 && sel.MinAge > sel.MaxAge:
		return badRequest("selection: min_age %v is more than max_age %v", sel.MinAge, sel.MaxAge)
	case sel.MaxBytes > 0 && sel.MinBytes > sel.MaxBytes:
		return badRequest("selection: min_bytes %d is more than max_bytes %d", sel.MinBytes, sel.MaxBytes)
	}
	return nil
}

// checkID accepts what can be a queue id.
func checkID(id string) error {
	if id == "" {
		return badRequest("empty queue id")
	}
	bad := len(id) > maxIDBytes
	for _, c := range []byte(id) {
		bad = bad || (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_'
	}
	if bad {
		return badRequest("%q is not a queue id", id[:min(len(id), maxIDBytes)])
	}
	return nil
}

// checkReason accepts a text that is kept and logged.
func checkReason(reason string) error {
	if len(reason) > maxReasonBytes {
		return badRequest("reason of %d bytes, at most %d", len(reason), maxReasonBytes)
	}
	return nil
}

// SelectsAll says whether sel leaves no message out by what it says of them; a
// limit alone selects nothing in particular.
func SelectsAll(sel Selection) bool {
	return len(sel.IDs) == 0 && sel.Sender == "" && sel.Recipient == "" && sel.Domain == "" &&
		sel.MinAge == 0 && sel.MaxAge == 0 && sel.MinBytes == 0 && sel.MaxBytes == 0 &&
		sel.NextHop == "" && sel.Error == "" && len(sel.States) == 0
}

// needSelection guards changes: an empty selection must be meant.
func needSelection(sel Selection, all bool) error {
	if err := checkSelection(sel); err != nil {
		return err
	}
	if SelectsAll(sel) && !all {
		return &Error{
			Status: http.StatusBadRequest, Code: CodeNoSelection,
			Text: "no selection: name messages or filters, or say that all are meant",
		}
	}
	return nil
}

// describeSelection is sel for an audit line, short.
func describeSelection(sel Selection, all bool) string {
	if SelectsAll(sel) && all {
		return "all"
	}
	ids := len(sel.IDs)
	if ids > 3 {
		sel.IDs = sel.IDs[:3]
	}
	b, err := json.Marshal(sel)
	if err != nil {
		return fmt.Sprintf("%+v", sel)
	}
	if ids > 3 {
		return fmt.Sprintf("%s and %d more ids", b, ids-3)
	}
	return string(b)
}
