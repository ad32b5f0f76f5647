package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"understudy/smtp"
	"understudy/smtp/queue"
)

// The stable codes of an Error; scripts may compare them.
const (
	CodeBadRequest    = "bad_request"        // the request cannot be understood
	CodeVersion       = "version"            // no protocol version in common
	CodeNoSelection   = "no_selection"       // a change needs a selection, or "all"
	CodeNotFound      = "not_found"          // no such message, hop, rule or source
	CodeMethod        = "method_not_allowed" // the path exists, the method does not
	CodeTooLarge      = "too_large"          // the request's body is over its bound
	CodeBodyAccess    = "body_access_off"    // queue.allow_body_access is not set
	CodeNotConfigured = "not_configured"     // this daemon runs without that part
	CodeConflict      = "conflict"           // the state does not allow it now
	CodeFull          = "storage_full"       // the spool has no room
	CodeCanceled      = "canceled"           // the daemon stops, or the caller left
	CodeInternal      = "internal"           // anything else; the daemon's log has more
)

// ErrUnreachable says that no daemon answered on the socket.
var ErrUnreachable = errors.New("daemon not reachable")

// ErrInUse says that another live daemon listens on the socket.
var ErrInUse = errors.New("admin socket in use by another daemon")

// Error is how the API says no. It is the JSON of every answer that is not 2xx,
// and the last line of a stream that failed after it began.
type Error struct {
	// Status is the HTTP status; 0 in a stream's last line.
	Status int `json:"-"`
	// Text is for people: lower case, names the message, key or file.
	Text string `json:"error"`
	// Code is one of the Code constants.
	Code string `json:"code"`
	// Change says what was done before the error.
	Change *queue.Change `json:"change,omitempty"`
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// NotFound builds the error an implementation of this package's interfaces
// returns for what does not exist; what names it ("message 4Xk...").
func NotFound(what string) error {
	return &Error{Status: http.StatusNotFound, Code: CodeNotFound, Text: "no such " + what}
}

// Conflict builds the error for what the present state does not allow.
func Conflict(text string) error {
	return &Error{Status: http.StatusConflict, Code: CodeConflict, Text: text}
}

func badRequest(format string, args ...any) error {
	return &Error{Status: http.StatusBadRequest, Code: CodeBadRequest, Text: fmt.Sprintf(format, args...)}
}

// asError maps any error to what the caller is told.
func asError(err error) *Error {
	var (
		e    *Error
		size *http.MaxBytesError
	)
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &size):
		return &Error{
			Status: http.StatusRequestEntityTooLarge, Code: CodeTooLarge,
			Text: fmt.Sprintf("request body over %d bytes", size.Limit),
		}
	case errors.Is(err, smtp.ErrFull):
		return &Error{Status: http.StatusInsufficientStorage, Code: CodeFull, Text: err.Error()}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &Error{Status: http.StatusServiceUnavailable, Code: CodeCanceled, Text: err.Error()}
	}
	return &Error{Status: http.StatusInternalServerError, Code: CodeInternal, Text: err.Error()}
}

// writeError sends err as JSON.
func writeError(w http.ResponseWriter, e *Error) {
	status := e.Status
	if status == 0 {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(e) // the caller may have left
}
