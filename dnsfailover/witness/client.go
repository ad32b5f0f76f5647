package witness

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"understudy/dnsfailover"
	"understudy/internal/peer"
)

// Config is where the witness is, and how its key is recognised.
type Config struct {
	// Address of the witness, host:port.
	Address string `key:"address" doc:"Where the witness listens, as witness.example.org:7027. It must be in neither site."`
	// Pins are the witness's keys, two while one is being replaced.
	Pins []string `key:"pins" single:"true" doc:"Public key of the witness, as understudy witness init prints it (sha256:...); two while it is being replaced."`
	// Timeout bounds one question and its answer.
	Timeout time.Duration `key:"timeout" default:"3s" doc:"Time for one question to the witness."`
}

// Validate joins all faults, each starting with its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if host, port, err := net.SplitHostPort(c.Address); err != nil || host == "" || port == "" {
		fault("address: %q is not host:port", c.Address)
	}
	if len(c.Pins) == 0 || len(c.Pins) > 2 {
		fault("pins: has %d keys, want one, or two while it is being replaced", len(c.Pins))
	}
	for _, p := range c.Pins {
		if _, err := peer.ParsePin(p); err != nil {
			fault("pins: %w", err)
		}
	}
	if c.Timeout != 0 && (c.Timeout < 100*time.Millisecond || c.Timeout > time.Minute) {
		fault("timeout: %s is not between 100ms and 1m", c.Timeout)
	}
	return errors.Join(errs...)
}

// Host is the witness's host, for the check that it is in neither site.
func (c Config) Host() string {
	host, _, _ := net.SplitHostPort(c.Address)
	return host
}

// Client is the register at a witness. It implements dnsfailover.Arbiter, without
// records.
type Client struct {
	address string
	timeout time.Duration
	tls     *tls.Config
}

var _ dnsfailover.Arbiter = (*Client)(nil)

// New makes a client that shows key, this site's key of the peer link. It does
// not connect.
func New(c Config, key *peer.Key) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = 3 * time.Second
	}
	pins := make([]peer.Pin, len(c.Pins))
	for i, p := range c.Pins {
		pin, err := peer.ParsePin(p)
		if err != nil {
			return nil, fmt.Errorf("pins: %w", err)
		}
		pins[i] = pin
	}
	return &Client{address: c.Address, timeout: c.Timeout, tls: peer.ClientTLS(key, func() []peer.Pin { return pins }, protocol)}, nil
}

// Read implements dnsfailover.Arbiter.
func (c *Client) Read(ctx context.Context) (dnsfailover.Register, error) {
	a, _, err := c.ask(ctx, request{Op: "read"})
	if err == nil {
		err = a.err(dnsfailover.ErrUnreachable)
	}
	if err != nil {
		return dnsfailover.Register{}, err
	}
	r, err := dnsfailover.ParseRegister(a.Register)
	if err != nil {
		return dnsfailover.Register{}, fmt.Errorf("%w: %w", dnsfailover.ErrBadRegister, err)
	}
	return r, nil
}

// Records implements dnsfailover.Arbiter: a witness has none.
func (c *Client) Records(ctx context.Context, keys []dnsfailover.RRKey) ([]dnsfailover.RRSet, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", dnsfailover.ErrUnreachable, err)
	}
	out := make([]dnsfailover.RRSet, len(keys))
	for i, k := range keys {
		out[i].RRKey = k
	}
	return out, nil
}

// CompareAndSwap implements dnsfailover.Arbiter. It takes at most three times
// Config.Timeout.
func (c *Client) CompareAndSwap(ctx context.Context, old, new dnsfailover.Register, changes []dnsfailover.RRChange) error {
	if len(changes) > 0 {
		return fmt.Errorf("%w: a witness holds no records", dnsfailover.ErrRefused)
	}
	if err := new.Validate(); err != nil {
		return fmt.Errorf("%w: %w", dnsfailover.ErrRefused, err)
	}
	for lost := false; ; lost = true {
		a, sent, err := c.ask(ctx, request{Op: "swap", Old: old.String(), New: new.String()})
		if err == nil {
			err = a.err(dnsfailover.ErrUnknownOutcome)
		}
		switch {
		case err == nil:
			return nil
		case !sent && !lost:
			return err // nothing was ever sent
		case errors.Is(err, dnsfailover.ErrRefused):
			return err
		case errors.Is(err, dnsfailover.ErrConflict) && !lost:
			return err
		}
		// An answer was lost: the register itself knows.
		now, readErr := c.Read(ctx)
		switch {
		case readErr == nil && now == new:
			return nil
		case lost, now != old, readErr != nil && !errors.Is(readErr, dnsfailover.ErrMissing):
			return fmt.Errorf("%w: %v", dnsfailover.ErrUnknownOutcome, err) //nolint:errorlint // only the first is the caller's
		}
	}
}

// ask makes one exchange. sent: the request may have reached the witness. Errors:
// ErrBadKey, nothing was sent; ErrUnreachable.
func (c *Client) ask(ctx context.Context, q request) (a answer, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return a, false, unreachable(err)
	}
	defer func() { _ = nc.Close() }()
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
	if t, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(t); err != nil {
			return a, false, unreachable(err)
		}
	}
	tc := tls.Client(nc, c.tls)
	// With TLS 1.3 a server refuses a key only after the client's handshake.
	accepted := make([]byte, 1)
	if err := tc.HandshakeContext(ctx); err != nil {
		return a, false, keyOrNetwork(err)
	}
	if _, err := tc.Read(accepted); err != nil || accepted[0] != welcome {
		return a, false, keyOrNetwork(err)
	}
	if err := send(tc, q); err != nil {
		return a, true, unreachable(err)
	}
	if err := receive(tc, &a); err != nil {
		return a, true, unreachable(err)
	}
	return a, true, nil
}

func unreachable(err error) error {
	return fmt.Errorf("%w: %w", dnsfailover.ErrUnreachable, err)
}

// keyOrNetwork tells a refused key, ours or the witness's, from the rest.
func keyOrNetwork(err error) error {
	if alert, ok := errors.AsType[tls.AlertError](err); ok {
		return fmt.Errorf("%w: the witness does not know our key: %w", dnsfailover.ErrBadKey, alert)
	}
	// An alert of the other side arrives as a *net.OpError around a private type.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return fmt.Errorf("%w: the witness does not know our key: %w", dnsfailover.ErrBadKey, err)
	}
	switch {
	case errors.Is(err, peer.ErrWrongKey):
		return fmt.Errorf("%w: the witness has another key than the pinned one: %w", dnsfailover.ErrBadKey, err)
	case err == nil:
		return fmt.Errorf("%w: it does not speak as a witness", dnsfailover.ErrUnreachable)
	}
	return unreachable(err)
}
