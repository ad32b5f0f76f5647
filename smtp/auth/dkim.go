package auth

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// What is looked at of a header. Verification costs signatures times signed names
// times fields, so that all three have a bound.
const (
	maxHeaderBytes    = 256 << 10
	maxHeaderFields   = 1000
	maxSignatureBytes = 8 << 10
	maxKeyBytes       = 4 << 10
	maxSignedNames    = 200
)

// errHeaderTooLarge: the header is beyond what is verified.
var errHeaderTooLarge = errors.New("header too large to verify")

// DKIMResult is the result of one signature.
type DKIMResult struct {
	Result Result
	// Domain is d=, Selector s=, Identifier i= (RFC 6376, section 3.5).
	Domain, Selector, Identifier string
	// Signature is the beginning of b=, to tell signatures apart (RFC 6008).
	Signature string
	// Reason says what is wrong.
	Reason string
}

// DKIM verifies the signatures of message, at most 8, in their order. A message
// without signatures gives none. The error is a failure to read message.
func (v *Verifier) DKIM(ctx context.Context, message io.Reader) ([]DKIMResult, error) {
	ctx, cancel := v.bounded(ctx)
	defer cancel()
	head, rest, err := splitHeader(message)
	if err != nil && !errors.Is(err, errHeaderTooLarge) {
		return nil, err
	}
	var out []DKIMResult
	for _, f := range head.fields {
		if strings.EqualFold(f.name, "DKIM-Signature") && len(out) < maxSignatures {
			out = append(out, describeSignature(f))
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	if err != nil {
		for i := range out {
			out[i].Result, out[i].Reason = PermError, err.Error()
		}
		return out, nil
	}
	for i := range out {
		if out[i].Result == PermError {
			return out, nil // a signature that is too large
		}
	}
	source := &remembering{r: rest}
	found, err := dkim.VerifyWithOptions(io.MultiReader(bytes.NewReader(head.raw), source), &dkim.VerifyOptions{
		LookupTXT:        func(name string) ([]string, error) { return v.lookupKey(ctx, name) },
		MaxVerifications: maxSignatures,
	})
	if source.err != nil {
		return nil, source.err
	}
	for i := range out {
		switch {
		case i >= len(found) || found[i] == nil:
			out[i].Result, out[i].Reason = PermError, "cannot be verified"
			if err != nil {
				out[i].Reason = err.Error()
			}
		default:
			out[i].Result, out[i].Reason = dkimResult(found[i].Err)
			if found[i].Domain != "" {
				out[i].Domain = canonical(found[i].Domain)
			}
			out[i].Identifier = found[i].Identifier
		}
	}
	return out, nil
}

// describeSignature reads what a signature says of itself.
func describeSignature(f field) DKIMResult {
	_, value, _ := strings.Cut(f.raw, ":")
	if len(value) > maxSignatureBytes {
		return DKIMResult{Result: PermError, Reason: "signature too large"}
	}
	t, _ := tags(value)
	if strings.Count(t["h"], ":") >= maxSignedNames {
		return DKIMResult{Result: PermError, Domain: canonical(noSpace(t["d"])), Reason: "too many signed names"}
	}
	sig := noSpace(t["b"])
	return DKIMResult{
		Domain: canonical(noSpace(t["d"])), Selector: noSpace(t["s"]), Identifier: noSpace(t["i"]),
		Signature: sig[:min(len(sig), 8)],
	}
}

func dkimResult(err error) (Result, string) {
	switch {
	case err == nil:
		return Pass, ""
	case dkim.IsTempFail(err):
		return TempError, err.Error()
	case dkim.IsPermFail(err):
		return PermError, err.Error()
	case strings.Contains(err.Error(), "body length tag"):
		return Policy, err.Error()
	}
	return Fail, err.Error()
}

// lookupKey looks a key record up. A record of a size that only wastes time is
// left out.
func (v *Verifier) lookupKey(ctx context.Context, name string) ([]string, error) {
	txts, err := v.Resolver.LookupTXT(ctx, name)
	if err != nil {
		if ctx.Err() != nil {
			// Some failures of a look-up that was cut short look like "no such name".
			return nil, &net.DNSError{Err: err.Error(), Name: name, IsTemporary: true, IsTimeout: true}
		}
		if dns, ok := errors.AsType[*net.DNSError](err); ok {
			return nil, dns // the library looks at the type
		}
		return nil, &net.DNSError{Err: err.Error(), Name: name, IsTemporary: true}
	}
	kept := txts[:0:0]
	for _, t := range txts {
		if len(t) <= maxKeyBytes {
			kept = append(kept, t)
		}
	}
	return kept, nil
}

// KeyNames are the names of the key records that the values of signature fields
// (DKIM-Signature, ARC-Message-Signature, ARC-Seal) refer to, each once, in order:
// for who wants to look them up beforehand.
func KeyNames(values []string) []string {
	var out []string
	for _, v := range values {
		if len(v) > maxSignatureBytes {
			continue
		}
		t, _ := tags(v)
		name := canonical(noSpace(t["s"])) + "._domainkey." + canonical(noSpace(t["d"]))
		if isHostName(name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// remembering turns an error of r into an end, and keeps it: the library leaves
// goroutines behind when reading fails.
type remembering struct {
	r   io.Reader
	err error
}

func (r *remembering) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
		return n, io.EOF
	}
	return n, err
}

// field is a header field with its bytes as they came, continuation lines and the
// last line end included; line ends are CRLF.
type field struct {
	name, raw string
}

// head is the header of a message.
type head struct {
	fields []field
	// raw is the header as it came, with the empty line.
	raw []byte
}

// splitHeader reads the header of message and returns what follows it. A header
// beyond the bounds gives its beginning and errHeaderTooLarge.
func splitHeader(message io.Reader) (head, io.Reader, error) {
	in := bufio.NewReaderSize(message, 4<<10)
	var h head
	start := 0 // of the current field in raw
	var bounds []int
	for {
		line, err := in.ReadSlice('\n')
		h.raw = append(h.raw, line...)
		partial := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !partial && !errors.Is(err, io.EOF) {
			return h, in, fmt.Errorf("read message: %w", err)
		}
		for partial && len(h.raw) <= maxHeaderBytes {
			line, err = in.ReadSlice('\n')
			h.raw = append(h.raw, line...)
			if partial = errors.Is(err, bufio.ErrBufferFull); err != nil && !partial && !errors.Is(err, io.EOF) {
				return h, in, fmt.Errorf("read message: %w", err)
			}
		}
		full := h.raw[start:]
		blank := len(bytes.TrimRight(full, "\r\n")) == 0
		if !blank && full[0] != ' ' && full[0] != '\t' {
			bounds = append(bounds, start)
		}
		over := len(h.raw) > maxHeaderBytes || len(bounds) > maxHeaderFields
		if blank || over || err != nil {
			h.fields = cutFields(h.raw, bounds)
			if over {
				return h, in, errHeaderTooLarge
			}
			return h, in, nil
		}
		start = len(h.raw)
	}
}

func cutFields(raw []byte, bounds []int) []field {
	out := make([]field, 0, len(bounds))
	for i, at := range bounds {
		end := len(raw)
		if i+1 < len(bounds) {
			end = bounds[i+1]
		}
		text := raw[at:end]
		if i+1 == len(bounds) {
			// Without the empty line that ends the header.
			for _, ending := range []string{"\r\n\r\n", "\n\n", "\n\r\n"} {
				if cut, ok := bytes.CutSuffix(text, []byte(ending)); ok {
					text = append(slices.Clip(cut), '\r', '\n')
					break
				}
			}
		}
		name, _, _ := bytes.Cut(text, []byte(":"))
		out = append(out, field{name: string(bytes.TrimRight(name, " \t")), raw: crlfLines(text)})
	}
	return out
}

// crlfLines gives text the line ends of mail.
func crlfLines(text []byte) string {
	s := strings.ReplaceAll(string(text), "\r\n", "\n")
	if !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return strings.ReplaceAll(s, "\n", "\r\n")
}
