package wire

import (
	"strings"
	"testing"
)

func TestSession(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.ready()
	c.data("Subject: x\r\n\r\n..dot\r\n.\r\n")
	c.expect("250 2.0.0 OK")
	c.envelope()
	c.send("BDAT 5\r\nab\r\n\r")
	c.expect("250 2.0.0 5 bytes")
	c.send("BDAT 2 LAST\r\n\n.")
	c.expect("250 2.0.0 OK")
	c.startTLS()
	c.send("MAIL FROM:<a@example.org>\r\n")
	c.expect("503 5.5.1")
	c.send("EHLO client.example\r\n")
	if r := c.expect("250-"); !strings.Contains(r, "REQUIRETLS") || strings.Contains(r, "STARTTLS") {
		t.Errorf("extensions under TLS: %q", r)
	}
	c.envelope()
	c.data("x\r\n.\r\n")
	c.expect("250 ")
	c.send("QUIT\r\n")
	c.expect("221 2.0.0")
	c.closed()
	b.bodies(t, "Subject: x\r\n\r\n.dot\r\n", "ab\r\n\r\n.", "x\r\n")
	if p := b.all()[2].proto; p != "ESMTPS" {
		t.Error(p)
	}
}
