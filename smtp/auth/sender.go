package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"blitiri.com.ar/go/spf"
)

// maxSignatures bounds how many DKIM signatures of one message are looked at.
const maxSignatures = 8

// ErrUnknown is returned where DNS did not answer: neither pass nor fail. The
// question may be asked again later.
var ErrUnknown = errors.New("sender authentication unknown")

// Resolver looks names up; *net.Resolver is one. Methods may be called
// concurrently.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
	LookupAddr(ctx context.Context, addr string) (names []string, err error)
}

// Sender is what the SMTP session knew of who sent a message.
type Sender struct {
	Addr     netip.Addr
	HELO     string
	MailFrom string // without angle brackets
}

// Evidence is what ties a message to the domain of its envelope sender. The zero
// value is: nothing does.
type Evidence struct {
	// Method is "spf" or "dkim"; empty where nothing passed.
	Method string
	// Domain is the name that passed: MAIL FROM's for SPF, the signature's d= for DKIM.
	Domain string
}

// Pass reports whether the envelope sender is authenticated.
func (e Evidence) Pass() bool { return e.Method != "" }

// Verifier checks senders. Its methods may be called concurrently.
type Verifier struct {
	// Resolver answers DNS questions.
	Resolver Resolver
	// Timeout bounds one check; 0 is 30 s.
	Timeout time.Duration
}

// EnvelopeSender looks for evidence that the owner of MAIL FROM's domain sent
// message: an SPF pass for MAIL FROM, or a valid DKIM signature over the whole
// body whose domain aligns with it. The null sender has none. An error that Is
// ErrUnknown says that DNS did not answer and that nothing else passed.
func (v *Verifier) EnvelopeSender(ctx context.Context, s Sender, message io.Reader) (Evidence, error) {
	domain := ""
	if i := strings.LastIndexByte(s.MailFrom, '@'); i >= 0 {
		domain = s.MailFrom[i+1:]
	}
	if domain == "" {
		return Evidence{}, nil
	}
	ctx, cancel := v.bounded(ctx)
	defer cancel()

	ok, spfErr := v.spf(ctx, s)
	if ok {
		return Evidence{Method: "spf", Domain: canonical(domain)}, nil
	}
	signer, dkimErr := v.dkim(ctx, domain, message)
	if signer != "" {
		return Evidence{Method: "dkim", Domain: signer}, nil
	}
	if ctx.Err() != nil {
		// Some failures of a look-up that was cut short look like "no such name".
		return Evidence{}, fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	}
	return Evidence{}, errors.Join(spfErr, dkimErr)
}

// bounded is ctx with the time of one check.
func (v *Verifier) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := v.Timeout
	if limit <= 0 {
		limit = 30 * time.Second
	}
	return context.WithTimeout(ctx, limit)
}

// spf reports whether MAIL FROM's domain lists the client. Softfail, neutral and
// none are no evidence; a temporary error is unknown (RFC 7208, section 2.6.6).
func (v *Verifier) spf(ctx context.Context, s Sender) (bool, error) {
	if !s.Addr.IsValid() {
		return false, nil
	}
	res, err := spf.CheckHostWithSender(s.Addr.Unmap().AsSlice(), s.HELO, s.MailFrom, spf.WithContext(ctx), spf.WithResolver(v.Resolver))
	if res == spf.TempError {
		return false, fmt.Errorf("%w: spf of %s: %w", ErrUnknown, s.MailFrom, err)
	}
	return res == spf.Pass, nil
}

// dkim returns the domain of a valid signature that aligns with domain.
func (v *Verifier) dkim(ctx context.Context, domain string, message io.Reader) (string, error) {
	found, err := v.DKIM(ctx, message)
	if err != nil {
		return "", fmt.Errorf("%w: dkim: %w", ErrUnknown, err)
	}
	var unknown error
	for _, sig := range found {
		if !Aligned(sig.Domain, domain, false) {
			continue
		}
		if sig.Result == Pass {
			return sig.Domain, nil
		}
		if sig.Result == TempError {
			unknown = fmt.Errorf("%w: dkim key of %s: %s", ErrUnknown, sig.Domain, sig.Reason)
		}
	}
	return "", unknown
}
