package wire

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-sasl"
)

// Login says who logs in, and how.
type Login struct {
	// Mechanism is "plain" (also if empty), "login", "oauthbearer", "xoauth2" or
	// "external" (the client's certificate).
	Mechanism string
	// User is whose mailboxes are opened.
	User string
	// Master, if set, is who authenticates for User: as PLAIN's authentication
	// identity with User as the authorisation identity, or with "login" as
	// User, Separator, Master (Dovecot's auth_master_user_separator).
	Master    string
	Separator string // "*" if empty
	// Secret is the password, or the token of OAUTHBEARER and XOAUTH2.
	Secret string
	// SASL, if set, is used instead of all the above but User. It serves one login.
	SASL sasl.Client
}

// String names who logs in, without the secret.
func (l Login) String() string {
	if l.Master != "" {
		return l.User + " by " + l.Master
	}
	return l.User
}

// Format keeps the secret out of logs.
func (l Login) Format(f fmt.State, _ rune) { fmt.Fprint(f, l.String()) } //nolint:errcheck // fmt ignores it as well

func (l Login) owner() string { return l.User }

// Validate returns what is wrong with the login as it is configured.
func (l Login) Validate() error {
	switch strings.ToLower(l.Mechanism) {
	case "", "plain", "login", "oauthbearer", "xoauth2", "external":
		return nil
	}
	return fmt.Errorf("mechanism: %q is none of plain, login, oauthbearer, xoauth2, external", l.Mechanism)
}

// combined is the name by which a master user logs in without SASL's identities.
func (l Login) combined() string {
	if l.Master == "" {
		return l.User
	}
	separator := l.Separator
	if separator == "" {
		separator = "*"
	}
	return l.User + separator + l.Master
}

// Authenticator returns the mechanism to try at host.
func (l Login) Authenticator(host string) sasl.Client {
	if l.SASL != nil {
		return l.SASL
	}
	switch strings.ToLower(l.Mechanism) {
	case "login":
		return sasl.NewLoginClient(l.combined(), l.Secret)
	case "oauthbearer":
		return sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: l.User, Token: l.Secret, Host: host})
	case "xoauth2":
		return &xoauth2{l.User, l.Secret}
	case "external":
		return sasl.NewExternalClient(l.User)
	}
	if l.Master != "" {
		return sasl.NewPlainClient(l.User, l.Master, l.Secret)
	}
	return sasl.NewPlainClient("", l.User, l.Secret)
}

// xoauth2 is Google's and Microsoft's mechanism from before RFC 7628.
type xoauth2 struct{ user, token string }

func (x *xoauth2) Start() (string, []byte, error) {
	return "XOAUTH2", []byte("user=" + x.user + "\x01auth=Bearer " + x.token + "\x01\x01"), nil
}

// Next answers the explanation of a failure, which comes as a challenge, with nothing.
func (x *xoauth2) Next([]byte) ([]byte, error) { return []byte{}, nil }

func (c *Client) login(ctx context.Context, l Login) error {
	if err := l.Validate(); err != nil {
		return err
	}
	if err := c.needCaps(ctx); err != nil {
		return err
	}
	mechanism := l.Authenticator(c.end.host)
	name, ir, err := mechanism.Start()
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	c.caps = c.caps.Copy() // to be seen again after the login
	offered := c.caps.AuthMechanisms()
	before := c.caps
	c.caps = nil
	switch {
	case slices.Contains(offered, name):
		err = c.authenticate(ctx, mechanism, name, ir, before.Has(imap.CapSASLIR))
	case before.Has(imap.CapLoginDisabled):
		err = fmt.Errorf("%w: it offers neither %s nor LOGIN", ErrUnsupported, name)
	case name == sasl.Plain || name == sasl.Login && l.SASL == nil:
		user, secret := l.combined(), l.Secret
		// RFC 4616, section 2: authorisation identity, authentication identity, password.
		if parts := strings.Split(string(ir), "\x00"); l.SASL != nil && len(parts) == 3 {
			user, secret = parts[1], parts[2]
			if parts[0] != "" && parts[0] != parts[1] {
				return fmt.Errorf("log in as %s: %w: it lacks AUTH=PLAIN, and LOGIN takes no authorisation identity", l, ErrUnsupported)
			}
		}
		_, err = begin[struct{}](c, "LOGIN", func(w *builder) { w.raw(" ").quoted(user, false).raw(" ").quoted(secret, false) }).Wait(ctx)
	default:
		err = fmt.Errorf("%w: it offers %s, not %s", ErrUnsupported, strings.Join(offered, ", "), name)
	}
	if _, refused := errors.AsType[*StatusError](err); refused {
		// RFC 5530, section 3: UNAVAILABLE, INUSE and LIMIT are no word on the secret.
		switch Code(err) { //nolint:exhaustive // the others are
		case imap.ResponseCodeUnavailable, imap.ResponseCodeInUse, imap.ResponseCodeLimit, imap.ResponseCodeServerBug, imap.ResponseCodeContactAdmin:
			return fmt.Errorf("log in as %s: %w", l, err)
		}
		return fmt.Errorf("log in as %s: %w: %w", l, ErrLogin, err)
	}
	if err != nil {
		return fmt.Errorf("log in as %s: %w", l, err)
	}
	return nil
}

func (c *Client) authenticate(ctx context.Context, mechanism sasl.Client, name string, ir []byte, inline bool) error {
	cmd := c.enqueue("AUTHENTICATE")
	c.write(cmd.tag, " AUTHENTICATE ", name)
	if inline && ir != nil && len(ir) < 4000 {
		c.write(" ", encodeResponse(ir, true))
		ir = nil
	}
	c.write("\r\n")
	var challenge string
	cmd.cont = func(text string) error { challenge = text; return nil }
	for rounds := 0; ; rounds++ {
		if err := c.wait(ctx, cmd, true); err != nil {
			return err
		}
		if cmd.done {
			break
		}
		if rounds > 10 {
			return c.fail(protocol("%s asks for more and more", name))
		}
		response := ir
		if ir == nil {
			raw, err := base64.StdEncoding.DecodeString(challenge)
			if err != nil {
				return c.fail(protocol("challenge of %s is not base64", name))
			}
			if response, err = mechanism.Next(raw); err != nil {
				// The mechanism gives up; the server is told, and its NO is the answer.
				c.write("*\r\n")
				continue
			}
		}
		ir = nil
		c.write(encodeResponse(response, false), "\r\n")
	}
	cmd.cont = nil
	if cmd.result.Type != imap.StatusResponseTypeOK {
		return &StatusError{Command: "AUTHENTICATE " + name, Status: cmd.result}
	}
	return nil
}

// encodeResponse is base64; RFC 4959, section 3: an empty initial response is "=".
func encodeResponse(response []byte, initial bool) string {
	if len(response) == 0 && initial {
		return "="
	}
	return base64.StdEncoding.EncodeToString(response)
}
