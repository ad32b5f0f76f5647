package wire

import (
	"errors"
	"fmt"

	"github.com/emersion/go-imap/v2"
)

// Errors of a connection. After any error that is no *StatusError the connection is of
// no use any more.
var (
	// ErrProtocol: the server said what no server may say, or more than the limits
	// allow. The text says what.
	ErrProtocol = errors.New("server breaks the protocol")
	// ErrClosed: the server said BYE, or the connection ended.
	ErrClosed = errors.New("connection closed by the server")
	// ErrNoTLS: the server offers no TLS and the address is not loopback.
	ErrNoTLS = errors.New("server offers no TLS")
	// ErrPin: the server's public key is none of the pinned ones.
	ErrPin = errors.New("public key is not pinned")
	// ErrLogin: the server refused the credentials. Trying again at once is of no use.
	ErrLogin = errors.New("login refused")
	// ErrUnsupported: the server lacks what the method needs; nothing was sent.
	ErrUnsupported = errors.New("server does not offer this")
	// ErrArgument: a name, flag or set cannot be said in IMAP; nothing was sent.
	ErrArgument = errors.New("cannot be said in IMAP")
	// ErrTooBig: a message exceeds the server's APPENDLIMIT; nothing was sent.
	ErrTooBig = errors.New("message is larger than the server takes")
	// ErrUnfinished: the connection was given up in the middle of a command.
	ErrUnfinished = errors.New("command given up half-way")
	// ErrInjection: the server answered BAD to a literal it had not been asked for, so
	// that the rest of it may have been read as commands.
	ErrInjection = errors.New("server may have read a message as commands")
)

// StatusError is a command's NO or BAD. The connection stays usable.
type StatusError struct {
	// Command is the command's name: "APPEND".
	Command string
	// Status is what the server said.
	Status Status
}

// Error names the command and the server's words.
func (e *StatusError) Error() string { return e.Command + ": " + e.Status.String() }

// Code returns the response code of a *StatusError in err, and "" for any other error.
func Code(err error) imap.ResponseCode {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.Status.Code
	}
	return ""
}

// Refused says whether err is an answer of the server to that one command, so that the
// connection may be used further.
func Refused(err error) bool {
	_, ok := errors.AsType[*StatusError](err)
	return ok || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrArgument) || errors.Is(err, ErrTooBig)
}

func protocol(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
