package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// sendTimeout bounds one attempt at one MX host.
const sendTimeout = 20 * time.Second

// send does what a sending server does: it tries the MX hosts in order of
// preference and stops at the first that answers. It returns which one took the
// message. A 5xx ends the attempt with errRefused; anything else means that the
// sender still has the message and tries again later.
func send(ctx context.Context, hosts []string, m mail) (took int, err error) {
	for i, host := range hosts {
		err = sendTo(ctx, host, m)
		if err == nil || errors.Is(err, errRefused) {
			return i, err
		}
	}
	return -1, err
}

// sendTo delivers m to one host.
func sendTo(ctx context.Context, host string, m mail) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", host, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c := gosmtp.NewClient(conn)
	defer c.Close() //nolint:errcheck // after QUIT or a failure there is nothing to lose
	if err := c.Hello("mail.elsewhere.example"); err != nil {
		return answer(err)
	}
	if err := c.SendMail("sender@elsewhere.example", []string{m.to}, bytes.NewReader(m.text)); err != nil {
		return answer(err)
	}
	_ = c.Quit() // the message was taken already
	return nil
}

// answer keeps a 5xx apart from everything that may be tried again.
func answer(err error) error {
	var se *gosmtp.SMTPError
	if errors.As(err, &se) && se.Code >= 500 {
		return fmt.Errorf("%w: %d %s", errRefused, se.Code, se.Message)
	}
	return err
}
