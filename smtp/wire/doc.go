// Package wire is SMTP as bytes: a strict server and a pipelining client. It knows
// nothing of mail policy, queues or files.
//
// Both speak through go-smtp's types (gosmtp.Session, SMTPError, MailOptions,
// RcptOptions). A Server takes a Backend, which returns a Session for each client:
//
//	srv, err := wire.NewServer(wire.DefaultServerConfig(), "mx2.example.com", tlsConfig, backend, log)
//	if err != nil {
//		return err
//	}
//	return srv.Serve(ctx, listener) // ends with ctx, or with srv.Shutdown
//
// # What the server speaks
//
// RFC 5321 with PIPELINING (RFC 2920), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531),
// SIZE (RFC 1870), ENHANCEDSTATUSCODES (RFC 2034), CHUNKING (RFC 3030), DSN
// (RFC 3461, RFC 6533), STARTTLS (RFC 3207; TLS 1.2 and later), REQUIRETLS (RFC
// 8689), LIMITS (RFC 9422), ETRN (RFC 1985) where the session takes it, Postfix's
// XCLIENT and XFORWARD and the PROXY protocol, versions 1 and 2, from listed
// networks.
//
// # Invariants
//
//   - A session sees the end of a message (io.EOF) only if every byte arrived. A
//     message that was cut, by a broken connection or a time-out, is never answered
//     250, and the connection never goes back to reading commands.
//   - The bytes delivered are the bytes sent, or the message is refused: bare CR,
//     bare LF and NUL are answered 550 5.6.11, by DATA and by BDAT.
//   - Only CRLF "." CRLF ends DATA, and it always does. Only CRLF ends a command.
//   - Whatever the answer, the next command is found where it starts; where that is
//     impossible the connection is closed.
//   - No error text of ours reaches a client: what has no SMTP code is 451 4.3.0.
//   - Every read and write has a deadline and every buffer a bound: a waiting
//     connection holds one buffer of 8 KiB, a message in flight one more of 64 KiB,
//     however long its lines are.
//   - Nothing that came in plain text counts after STARTTLS; a failed handshake ends
//     the connection.
//
// # Deliberately refused
//
//   - BINARYMIME: such a message cannot be passed on to a host without it.
//   - AUTH, EXPN, TURN, ATRN, SEND, SOML, SAML, BURL: this is an MX.
//   - Clients that talk before the banner, and other protocols (HTTP, TLS without
//     STARTTLS, a PROXY header from an unlisted address): closed at once.
//   - A command that follows STARTTLS in the same packet (injection).
//   - Paths without angle brackets, control characters in commands, addresses that
//     need SMTPUTF8 without that parameter.
//
// Taken although it is not quite right, because it costs nothing and mail would be
// lost: blanks behind "MAIL FROM:", dots anywhere in a local part, long local parts,
// source routes (ignored), 8-bit content without BODY=8BITMIME, lines of any length.
//
// # Goroutines
//
// One for each connection, started by Serve, which returns after all have ended.
package wire
