package wire

import (
	"strings"
	"testing"

	gosmtp "github.com/emersion/go-smtp"
)

// A sender that keeps its connection open for many messages must not be cut off
// for what earlier ones had in common with an attack.
func TestCountersBeginAnewWithAMessage(t *testing.T) {
	t.Parallel()
	b := &sink{rcpt: func(to string) error {
		if strings.HasPrefix(to, "gone") {
			return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "unknown"}
		}
		return nil
	}}
	_, addr := serve(t, b, func(c *ServerConfig) { c.MaxBadRecipients, c.MaxBadCommands = 3, 3 })
	c := dial(t, addr)
	c.expect("220 ")
	c.hello()
	for range 4 {
		c.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<gone1@example.com>\r\nRCPT TO:<gone2@example.com>\r\n" +
			"WHAT\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
		for _, want := range []string{"250 2.1.0", "550 5.1.1", "550 5.1.1", "500 ", "250 2.1.5", "354 "} {
			c.expect(want)
		}
		c.send("x\r\n.\r\n")
		c.expect("250 2.0.0")
	}
}

// RFC 2920, section 3.1: DATA, or BDAT, may be on its way before it is known that
// every recipient is refused. That is no bad command.
func TestPipelinedDataWithoutRecipientsIsNoBadCommand(t *testing.T) {
	t.Parallel()
	b := &sink{rcpt: func(string) error {
		return &gosmtp.SMTPError{Code: 450, EnhancedCode: gosmtp.EnhancedCode{4, 1, 1}, Message: "later"}
	}}
	_, addr := serve(t, b, func(c *ServerConfig) { c.MaxBadCommands = 2 })
	c := dial(t, addr)
	c.expect("220 ")
	c.hello()
	for i := range 10 {
		data := "DATA\r\n"
		if i%2 == 1 {
			data = "BDAT 3 LAST\r\nx\r\n"
		}
		c.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n" + data + "RSET\r\n")
		for _, want := range []string{"250 2.1.0", "450 4.1.1", "554 5.5.1", "250 2.0.0"} {
			c.expect(want)
		}
	}
	b.bodies(t)

	// Nor are the chunks that were on their way when an earlier one was refused.
	_, addr = serve(t, &sink{}, func(c *ServerConfig) { c.MaxBadCommands = 2 })
	c = dial(t, addr)
	c.ready()
	c.send("BDAT 3\r\nx\ny" + strings.Repeat("BDAT 3\r\nabc", 5) + "BDAT 0 LAST\r\n")
	c.expect("550 5.6.11")
	for range 6 {
		c.expect("503 5.5.1")
	}
	c.envelope()
}

// XCLIENT begins a new session: one client's faults are not another's.
func TestXClientBeginsAnewWithTheCounters(t *testing.T) {
	t.Parallel()
	b := &sink{rcpt: func(string) error {
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "unknown"}
	}}
	_, addr := serve(t, b, func(c *ServerConfig) {
		c.XClientFrom, c.MaxBadRecipients = []string{"127.0.0.0/8"}, 2
	})
	c := dial(t, addr)
	c.expect("220 ")
	for i := range 4 {
		c.send("RSET\r\nXCLIENT ADDR=192.0.2." + itoa(i+1) + "\r\n")
		c.expect("250 ")
		c.expect("220 ")
		c.hello()
		c.send("MAIL FROM:<a@example.org>\r\n")
		c.expect("250 ")
		for range 2 {
			c.send("RCPT TO:<b@example.com>\r\n")
			c.expect("550 5.1.1")
		}
	}
}
