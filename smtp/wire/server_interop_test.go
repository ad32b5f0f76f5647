package wire

import "testing"

// Clients of another age, and clients in a hurry.
func TestOddButHonestClients(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, nil)
	// HELO only.
	c := dial(t, addr)
	c.expect("220 ")
	c.send("HELO old.example\r\n")
	c.expect("250 mx.example.com")
	c.send("MAIL FROM: <a@example.org>\r\n")
	c.expect("250 ")
	c.send("RCPT TO: <b@example.com>\r\n")
	c.expect("250 ")
	c.data("a\r\n.\r\n")
	c.expect("250 2.0.0")
	c.send("QUIT\r\n")
	c.expect("221 ")
	// BDAT in chunks, everything at once, and no QUIT.
	c = dial(t, addr)
	c.expect("220 ")
	c.hello()
	c.send("MAIL FROM:<a@example.org> SIZE=9 BODY=8BITMIME\r\nRCPT TO:<b@example.com> NOTIFY=NEVER ORCPT=rfc822;b@example.com\r\n" +
		"BDAT 2\r\nb\rBDAT 4\r\n\nc\xfc\rBDAT 1\r\n\nBDAT 0 LAST\r\n")
	for _, want := range []string{"250 2.1.0", "250 2.1.5", "250 2.0.0 2", "250 2.0.0 4", "250 2.0.0 1", "250 2.0.0"} {
		c.expect(want)
	}
	_ = c.nc.Close()
	// Bare LF throughout: told at once, and cut off.
	c = dial(t, addr)
	c.expect("220 ")
	c.send("EHLO lf.example\nMAIL FROM:<a@example.org>\n")
	c.expect("500 5.5.2 Lines must end in CRLF")
	c.closed()
	b.bodies(t, "a\r\n", "b\r\nc\xfc\r\n")
}
