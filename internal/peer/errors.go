package peer

import (
	"errors"
	"fmt"
)

// What can go wrong between the sites. Test with errors.Is.
var (
	// ErrDown: there is no connection; nothing was sent.
	ErrDown = errors.New("peer: the other site is not connected")
	// ErrLost: the connection ended, or the time ran out, after the request was
	// sent. The other site may have carried it out.
	ErrLost = errors.New("peer: no answer; the request may have been carried out")
	// ErrUnknownMethod: the other site does not have this method, perhaps because
	// it is an older version. Nothing was done.
	ErrUnknownMethod = errors.New("peer: the other site does not know this method")
	// ErrBusy: the other site has too much to do already. Nothing was done.
	ErrBusy = errors.New("peer: the other site is busy")
	// ErrNoService: the other site does not serve this service.
	ErrNoService = errors.New("peer: the other site does not serve this")
	// ErrWrongKey: the certificate's key is not pinned.
	ErrWrongKey = errors.New("peer: key is not pinned")
	// ErrVersion: the two sites have no protocol version in common.
	ErrVersion = errors.New("peer: no protocol version in common")
	// ErrTooBig: a frame is larger than MaxFrameBytes.
	ErrTooBig = errors.New("peer: message too big")
)

// RemoteError is what the other site's handler answered instead of a result.
type RemoteError struct {
	// Method is what was asked.
	Method string
	// Text is the handler's error, for operators.
	Text string
}

// Error implements error.
func (e *RemoteError) Error() string {
	return fmt.Sprintf("peer: %s: the other site answers: %s", e.Method, e.Text)
}
