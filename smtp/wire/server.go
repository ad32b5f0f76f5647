package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"

	gosmtp "github.com/emersion/go-smtp"
)

// Backend decides who may talk to the server. Its method may be called
// concurrently.
type Backend interface {
	// Connect is called once a connection's real client address is known (after
	// PROXY) and before the banner, and again after XCLIENT has changed it, when
	// the session before it has been logged out. An error refuses the connection:
	// a *gosmtp.SMTPError with its own reply, anything else with 421 4.3.0.
	Connect(ctx context.Context, c *Conn) (Session, error)
}

// Session is one client's dialogue: go-smtp's session plus the greeting. Its
// methods are called one at a time. An error that is no *gosmtp.SMTPError is
// logged and answered 451 4.3.0 with a generic text; an SMTPError with a 2xx code
// is success with that text; one with code 421 also closes the connection.
//
// The addresses given to Mail and Rcpt are without angle brackets and source
// routes, and are syntactically right; "postmaster" may come without a domain.
// ENVID and ORCPT are decoded from xtext; EncodeXtext is the way back.
//
// Data's reader ends with io.EOF only if the whole message arrived and was free of
// bare CR, bare LF and NUL. On any other error the session must drop the message;
// what it returns then is not used, because the server knows the right reply.
// Reset is called after a transaction ended, whatever became of it; Logout once,
// at the end.
type Session interface {
	gosmtp.Session
	// Hello is called for HELO and EHLO, and again after STARTTLS.
	Hello(name string, extended bool) error
}

// ETRNSession is a Session that takes ETRN (RFC 1985).
type ETRNSession interface {
	// ETRN gets the argument as sent ("example.com", "@example.com", "#queue"). Nil
	// is answered 250; for other positive replies return an SMTPError with a 2xx
	// code.
	ETRN(argument string) error
}

// Server is a strict SMTP server. Make it with NewServer.
type Server struct{}

// Conn is one client connection, as a Session sees it. Its methods may be called
// by the session's goroutine only.
type Conn struct{}

// NewServer returns a server that greets as hostname. A nil tlsConfig switches
// STARTTLS off; otherwise at least TLS 1.2 is asked for. A nil log discards.
func NewServer(cfg ServerConfig, hostname string, tlsConfig *tls.Config, backend Backend, log *slog.Logger) (*Server, error) {
	return nil, errors.ErrUnsupported
}

// Serve accepts connections from l until Shutdown is called or ctx ends; the
// latter is a Shutdown with shutdown_timeout. It returns after its connections
// have ended: nil then, else why accepting became impossible. It closes l. It may
// be called for several listeners at the same time.
func (s *Server) Serve(ctx context.Context, l net.Listener) error { return errors.ErrUnsupported }

// Shutdown stops accepting, answers idle clients 421 and closes them at once. A
// message that is being received may finish until ctx ends; then all that is left
// is closed and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error { return errors.ErrUnsupported }

// Context ends when the connection does.
func (c *Conn) Context() context.Context { return context.Background() }

// ID names the connection in logs.
func (c *Conn) ID() string { return "" }

// RemoteAddr is the client's address, after PROXY and XCLIENT. It is the zero
// value where the listener has no such addresses (unix sockets).
func (c *Conn) RemoteAddr() netip.AddrPort { return netip.AddrPort{} }

// LocalAddr is the address the client connected to, after PROXY and XCLIENT.
func (c *Conn) LocalAddr() netip.AddrPort { return netip.AddrPort{} }

// TLS is the state of the TLS connection, nil in plain text.
func (c *Conn) TLS() *tls.ConnectionState { return nil }

// HELO is the name the client gave, or XCLIENT gave for it; empty before that.
func (c *Conn) HELO() string { return "" }

// Extended reports whether the client greeted with EHLO.
func (c *Conn) Extended() bool { return false }

// ReverseName is the client's name as XCLIENT gave it, else empty.
func (c *Conn) ReverseName() string { return "" }

// Login is the user name as XCLIENT gave it, else empty.
func (c *Conn) Login() string { return "" }

// Protocol is the keyword for the "with" clause of a Received field: SMTP, ESMTP,
// ESMTPS (RFC 3848), UTF8SMTP or UTF8SMTPS (RFC 6531) by the current transaction.
func (c *Conn) Protocol() string { return "" }

// Trusted reports that the client's address was given by a listed network, with
// the PROXY protocol or XCLIENT.
func (c *Conn) Trusted() bool { return false }
