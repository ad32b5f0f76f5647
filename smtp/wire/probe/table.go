package probe

import (
	"strings"
	"time"
)

const (
	refused = `^[45]`
	ended   = `^closed$`
	header  = "Subject: probe\r\n\r\n"
)

// envelope opens a transaction.
func envelope() []Step {
	return []Step{
		{Send: "MAIL FROM:<{FROM}>\r\n", Want: `^250`},
		{Send: "RCPT TO:<{TO}>\r\n", Want: `^250`},
	}
}

// content sends a message by DATA; want is about the reply to it.
func content(body, want string) []Step {
	return append(
		envelope(),
		Step{Send: "DATA\r\n", Want: `^354`},
		Step{Send: header + body, Want: want},
	)
}

// inStep checks that the next command is understood as one.
func inStep(steps []Step) []Step {
	return append(steps, Step{Send: "NOOP\r\n", Want: `^250`})
}

// noEnd is a body with a wrong end of data in it, then a command that must not be
// seen as one (its own answer would be 5xx), then the true end.
func noEnd(name, end string) Probe {
	return Probe{Name: name + " is no end of data", Steps: inStep(content("text"+end+"XSMUGGLED\r\n.\r\n", `^(250|5)`))}
}

// exact is a body that must be refused, because it cannot be kept as it is.
func exact(name, body string) Probe {
	return Probe{Name: name + " in a message is refused", Steps: inStep(content(body+"\r\n.\r\n", `^5`))}
}

// Table returns all probes.
func Table() []Probe {
	table := []Probe{
		{Name: "a session before the banner is refused", Early: true, Steps: []Step{{
			Send: "EHLO x\r\nMAIL FROM:<{FROM}>\r\nRCPT TO:<{TO}>\r\nDATA\r\n" + header + "x\r\n.\r\nQUIT\r\n", Want: `^(5|4|closed)`,
		}}},
		noEnd("LF.LF", "\n.\n"),
		noEnd("LF.CRLF", "\n.\r\n"),
		noEnd("CRLF.LF", "\r\n.\n"),
		noEnd("CR.CR", "\r.\r"),
		noEnd("CRLF.CR", "\r\n.\r"),
		{Name: "CR CRLF.CRLF ends the message", Steps: inStep(content("text\r\r\n.\r\n", `^[25]`))},
		exact("CR CRLF and a stuffed dot", "text\r\r\n..x"),
		exact("dot CR x", ".\rx"),
		exact("NUL", "te\x00xt"),
		exact("bare LF", "te\nxt"),
		exact("bare CR", "te\rxt"),
		{Name: "a command ended by a bare LF is refused", Steps: []Step{{Send: "NOOP\n", FIN: true, Want: `^(5|4|closed)`}}},
		{Name: "a truncated BDAT is not accepted", Needs: "CHUNKING", Steps: append(
			envelope(),
			Step{Send: "BDAT 1000 LAST\r\n" + header, FIN: true, Want: `^(4|5|closed)`},
		)},
		{Name: "a truncated DATA is not accepted", Steps: append(
			envelope(),
			Step{Send: "DATA\r\n", Want: `^354`},
			Step{Send: header + "x\r\n", FIN: true, Want: `^(4|5|closed)`},
		)},
		{Name: "XCLIENT from anywhere is refused", Steps: []Step{{Send: "XCLIENT ADDR=192.0.2.1\r\n", Want: `^5`}}},
		{Name: "ETRN has an answer", Steps: inStep([]Step{{Send: "ETRN probe.example\r\n", Want: `^(25[0-3]|45|50|55)`}})},
		{Name: "VRFY has an answer", Steps: inStep([]Step{{Send: "VRFY {TO}\r\n", Want: `^(25[02]|5)`}})},
		{Name: "postmaster needs no domain", Steps: []Step{
			{Send: "MAIL FROM:<{FROM}>\r\n", Want: `^250`}, {Send: "RCPT TO:<postmaster>\r\n", Want: `^250`},
		}},
		{Name: "nested MAIL is refused", Steps: []Step{
			{Send: "MAIL FROM:<{FROM}>\r\n", Want: `^250`}, {Send: "MAIL FROM:<{FROM}>\r\n", Want: `^503`},
		}},
		{Name: "a UTF-8 address needs SMTPUTF8", Steps: []Step{{Send: "MAIL FROM:<\u00fc@\u00fc.example>\r\n", Want: refused}}},
		{Name: "control characters in an address are refused", Steps: []Step{{Send: "MAIL FROM:<a\x01b@probe.example>\r\n", Want: refused}}},
		{Name: "a line of 3,000 bytes is accepted", Steps: content(strings.Repeat("y", 3000)+"\r\n.\r\n", `^250`)},
		{Name: "a command line of 1 MiB is survived", Steps: []Step{{Send: "NOOP " + strings.Repeat("x", 1<<20) + "\r\n", Want: `^(5|4|closed)`}}},
		{Name: "an HTTP request is closed", Early: true, Steps: []Step{
			{Want: `^220`}, {Send: "GET / HTTP/1.1\r\nHost: probe\r\n\r\n", Want: `^(5|4|221|closed)`}, {Want: ended},
		}},
		{Name: "a client that leaves after EHLO is let go", Steps: []Step{{FIN: true, Want: ended}}},
		{Name: "50 bad recipients are too many", Steps: []Step{
			{Send: "MAIL FROM:<{FROM}>\r\n", Want: `^250`}, {Send: "RCPT TO:<{UNKNOWN}>\r\n", Times: 50, Until: `^421`},
		}},
		{Name: "100 recipients are taken, 1,100 survived", Steps: append(
			envelope(),
			Step{Send: "RCPT TO:<{TO}>\r\n", Times: 99, Want: `^250`}, Step{Send: "RCPT TO:<{TO}>\r\n", Times: 1000, Want: `^(250|4)`},
		)},
		{Name: "SIZE above 4 GiB is too large, not a syntax error", Needs: "SIZE", Steps: []Step{
			{Send: "MAIL FROM:<{FROM}> SIZE=4294967297\r\n", Want: `^552`},
		}},
		{Name: "a message of the size limit is welcome", Needs: `SIZE [1-9]\d*`, Steps: []Step{
			{Send: "MAIL FROM:<{FROM}> SIZE={SIZE+1}\r\n", Want: `^552`}, {Send: "MAIL FROM:<{FROM}> SIZE={SIZE}\r\n", Want: `^250`},
		}},
		{Name: "nothing sent before the handshake is carried out", Needs: "STARTTLS", Steps: []Step{
			// 220 is the answer to STARTTLS; one more answer in plain text would be
			// that of the injected command.
			{Send: "STARTTLS\r\nNOOP\r\n", FIN: true, Want: `^(220|5|4|closed)`}, {Want: `^(closed|[^1-5])`},
		}},
	}
	slow := Probe{Name: "a slow but live sender is waited for", Slow: true, Steps: append(envelope(), Step{Send: "DATA\r\n", Want: `^354`})}
	slow.Steps = append(
		slow.Steps,
		Step{Send: header},
		Step{Send: "one line\r\n", Pause: 300 * time.Millisecond, Times: 14},
		Step{Send: ".\r\n", Want: `^250`},
	)
	return append(table, slow)
}
