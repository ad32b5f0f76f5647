package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
)

// maxInstances is the longest chain (RFC 8617, section 4.2.1).
const maxInstances = 50

// The fields of a set.
const (
	fieldAAR = "ARC-Authentication-Results"
	fieldAMS = "ARC-Message-Signature"
	fieldAS  = "ARC-Seal"
)

// ARCResult is the state of a message's chain (RFC 8617, section 4.4).
type ARCResult struct {
	// Result is none, pass or fail; temperror where a key could not be looked up.
	Result Result
	// Instances is the length of the chain.
	Instances int
	// OldestPass is the lowest instance since which the message is unchanged, as
	// far as the signatures reach without a gap; 0 where all still verify
	// (section 5.2, step 5).
	OldestPass int
	// Sealer is d= of the newest seal: who vouches.
	Sealer string
	// Results is the value of the newest ARC-Authentication-Results, without its
	// instance: what the sealer found.
	Results string
	// Reason says what broke the chain.
	Reason string
}

// arcSet is one instance.
type arcSet struct {
	aar, ams, as    *field
	amsTags, asTags map[string]string
}

// ARC validates the chain of message (RFC 8617, section 5.2). The error is a
// failure to read message.
func (v *Verifier) ARC(ctx context.Context, message io.Reader) (ARCResult, error) {
	h, body, err := splitHeader(message)
	if errors.Is(err, errHeaderTooLarge) {
		return ARCResult{Result: Fail, Reason: err.Error()}, nil
	} else if err != nil {
		return ARCResult{}, err
	}
	sets, err := arcSets(h.fields)
	if err != nil {
		return ARCResult{Result: Fail, Instances: len(sets), Reason: err.Error()}, nil
	}
	if len(sets) == 0 {
		return ARCResult{Result: None}, nil
	}
	newest := sets[len(sets)-1]
	r := ARCResult{Instances: len(sets), Sealer: canonical(noSpace(newest.asTags["d"])), Results: aarResults(newest.aar)}
	hashes := newBodyHashes(sets)
	if err := hashes.read(body); err != nil {
		return ARCResult{}, err
	}
	// From here on it is DNS that takes the time.
	ctx, cancel := v.bounded(ctx)
	defer cancel()
	return v.validate(ctx, r, byName(h.fields), sets, hashes), nil
}

// validate does the steps that need keys.
func (v *Verifier) validate(ctx context.Context, r ARCResult, fields map[string][]*field, sets []arcSet, hashes bodyHashes) ARCResult {
	fail := func(what string, i int, err error) ARCResult {
		r.Result, r.Reason = Fail, fmt.Sprintf("%s %d: %v", what, i, err)
		if errors.Is(err, errTemporary) {
			r.Result = TempError
		}
		return r
	}
	n := len(sets)
	// Step 4: the newest message signature must verify.
	if err := v.verifyAMS(ctx, fields, sets[n-1], hashes); err != nil {
		return fail("message signature", n, err)
	}
	// Step 5: how far back the message is unchanged.
	for i := n - 1; i >= 1; i-- {
		if err := v.verifyAMS(ctx, fields, sets[i-1], hashes); err != nil {
			r.OldestPass = i + 1
			break
		}
	}
	// Step 6: every seal must verify.
	for i := n; i >= 1; i-- {
		if err := v.verifySeal(ctx, sets[:i]); err != nil {
			return fail("seal", i, err)
		}
	}
	r.Result = Pass
	return r
}

// arcSets collects the sets and checks their structure (section 5.2, steps 1 to 3).
func arcSets(fields []field) ([]arcSet, error) {
	sets := make([]arcSet, 0, 4)
	for i := range fields {
		f := &fields[i]
		var kind **field
		isAAR := strings.EqualFold(f.name, fieldAAR)
		isAMS, isAS := strings.EqualFold(f.name, fieldAMS), strings.EqualFold(f.name, fieldAS)
		if !isAAR && !isAMS && !isAS {
			continue
		}
		_, value, _ := strings.Cut(f.raw, ":")
		if len(value) > maxSignatureBytes {
			return sets, errors.New("field too large")
		}
		n, t, err := instance(value, isAAR)
		if err != nil {
			return sets, err
		}
		for len(sets) < n {
			sets = append(sets, arcSet{})
		}
		s := &sets[n-1]
		switch {
		case isAAR:
			kind = &s.aar
		case isAMS:
			kind, s.amsTags = &s.ams, t
		default:
			kind, s.asTags = &s.as, t
		}
		if *kind != nil {
			return sets, fmt.Errorf("instance %d has %s twice", n, f.name)
		}
		*kind = f
	}
	for i, s := range sets {
		if s.aar == nil || s.ams == nil || s.as == nil {
			return sets, fmt.Errorf("instance %d is incomplete", i+1)
		}
		want := "pass"
		if i == 0 {
			want = "none"
		}
		if cv := strings.ToLower(noSpace(s.asTags["cv"])); cv != want {
			return sets, fmt.Errorf("instance %d says cv=%.16q", i+1, cv)
		}
	}
	return sets, nil
}

// instance reads i= of a field's value, and its tags where it is no AAR.
func instance(value string, aar bool) (int, map[string]string, error) {
	var text string
	var t map[string]string
	if aar {
		first, _, _ := strings.Cut(value, ";")
		name, v, _ := strings.Cut(first, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "i") {
			return 0, nil, errors.New("results without instance")
		}
		text = strings.TrimSpace(v)
	} else {
		var ok bool
		if t, ok = tags(value); !ok {
			return 0, nil, errors.New("malformed tags")
		}
		text = noSpace(t["i"])
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxInstances || strings.HasPrefix(text, "+") {
		return 0, nil, errors.New("impossible instance")
	}
	return n, t, nil
}

// aarResults is the value of an AAR behind its instance, unfolded.
func aarResults(f *field) string {
	_, value, _ := strings.Cut(relaxedField(f.raw), ":")
	_, value, _ = strings.Cut(value, ";")
	return strings.TrimSpace(value)
}

// bodyHashes are the SHA-256 of the body in the forms that the signatures use.
type bodyHashes map[string]hash.Hash

func newBodyHashes(sets []arcSet) bodyHashes {
	b := make(bodyHashes)
	for _, s := range sets {
		if _, mode := canonicalization(s.amsTags["c"]); mode == "simple" || mode == "relaxed" {
			b[mode] = sha256.New()
		}
	}
	return b
}

func (b bodyHashes) read(body io.Reader) error {
	var writers []io.Writer
	var ends []*bodyWriter
	for mode, h := range b {
		w := newBodyWriter(h, mode)
		writers, ends = append(writers, w), append(ends, w)
	}
	if _, err := io.Copy(io.MultiWriter(writers...), body); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	for _, w := range ends {
		w.Close()
	}
	return nil
}

// canonicalization reads c= (RFC 6376, section 3.5).
func canonicalization(c string) (header, body string) {
	header, body, _ = strings.Cut(noSpace(c), "/")
	if header == "" {
		header = "simple"
	}
	if body == "" {
		body = "simple"
	}
	return header, body
}

// verifyAMS checks a message signature: a DKIM signature without v= (RFC 8617,
// section 4.1.2).
func (v *Verifier) verifyAMS(ctx context.Context, fields map[string][]*field, s arcSet, hashes bodyHashes) error {
	t := s.amsTags
	for _, name := range []string{"a", "b", "bh", "d", "h", "s"} {
		if noSpace(t[name]) == "" {
			return fmt.Errorf("%s= is missing", name)
		}
	}
	if _, there := t["l"]; there {
		return errors.New("it covers a part of the body only")
	}
	headerMode, bodyMode := canonicalization(t["c"])
	sum := hashes[bodyMode]
	if sum == nil || headerMode != "simple" && headerMode != "relaxed" {
		return errors.New("unknown canonicalization")
	}
	bh, err := base64.StdEncoding.DecodeString(noSpace(t["bh"]))
	if err != nil || subtle.ConstantTimeCompare(bh, sum.Sum(nil)) != 1 {
		return errors.New("body hash did not verify")
	}
	digest := sha256.New()
	from := false
	used := make(map[string]int) // how many of a name are signed, from the bottom
	for name := range strings.SplitSeq(noSpace(t["h"]), ":") {
		name = strings.ToLower(name)
		if name == strings.ToLower(fieldAS) {
			return errors.New("it signs a seal")
		}
		from = from || name == "from"
		if list := fields[name]; used[name] < len(list) {
			f := list[used[name]]
			used[name]++
			_, _ = io.WriteString(digest, canonicalField(headerMode, f.raw))
		}
	}
	if !from {
		return errors.New("it does not sign From")
	}
	own := canonicalField(headerMode, withoutSignature(s.ams.raw))
	_, _ = io.WriteString(digest, strings.TrimRight(own, "\r\n"))
	return v.verifyTags(ctx, t, digest.Sum(nil))
}

// byName are the fields of each name, from the bottom: the order in which a
// signature takes them (RFC 6376, section 5.4.2).
func byName(fields []field) map[string][]*field {
	out := make(map[string][]*field)
	for i := len(fields) - 1; i >= 0; i-- {
		name := strings.ToLower(fields[i].name)
		out[name] = append(out[name], &fields[i])
	}
	return out
}

// verifySeal checks the seal of the last set over all sets (section 5.1.1).
func (v *Verifier) verifySeal(ctx context.Context, sets []arcSet) error {
	last := sets[len(sets)-1]
	t := last.asTags
	for _, name := range []string{"a", "b", "d", "s"} {
		if noSpace(t[name]) == "" {
			return fmt.Errorf("%s= is missing", name)
		}
	}
	if _, there := t["h"]; there {
		return errors.New("h= in a seal") // section 4.1.3
	}
	digest := sha256.New()
	for _, s := range sets[:len(sets)-1] {
		for _, f := range []*field{s.aar, s.ams, s.as} {
			_, _ = io.WriteString(digest, relaxedField(f.raw))
		}
	}
	_, _ = io.WriteString(digest, relaxedField(last.aar.raw)+relaxedField(last.ams.raw))
	own := relaxedField(withoutSignature(last.as.raw))
	_, _ = io.WriteString(digest, strings.TrimRight(own, "\r\n"))
	return v.verifyTags(ctx, t, digest.Sum(nil))
}

// verifyTags checks b= with the key that d= and s= name.
func (v *Verifier) verifyTags(ctx context.Context, t map[string]string, digest []byte) error {
	signature, err := base64.StdEncoding.DecodeString(noSpace(t["b"]))
	if err != nil {
		return errors.New("malformed signature")
	}
	key, err := v.key(ctx, canonical(noSpace(t["d"])), noSpace(t["s"]))
	if err != nil {
		return err
	}
	return key.verify(noSpace(t["a"]), digest, signature)
}

// withoutSignature empties the b= of a field (RFC 6376, section 3.7).
func withoutSignature(raw string) string {
	name, value, _ := strings.Cut(raw, ":")
	pieces := strings.Split(value, ";")
	for i, p := range pieces {
		tag, v, ok := strings.Cut(p, "=")
		if !ok || strings.TrimSpace(tag) != "b" {
			continue
		}
		// The line end behind the last tag belongs to the field, not to b=.
		end := ""
		if i == len(pieces)-1 && strings.HasSuffix(v, "\r\n") {
			end = "\r\n"
		}
		pieces[i] = tag + "=" + end
	}
	return name + ":" + strings.Join(pieces, ";")
}
