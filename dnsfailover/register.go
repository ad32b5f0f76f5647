package dnsfailover

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// RegisterState says whether the holder's place is disputed.
type RegisterState string

// The states of the register.
const (
	// Held: the holder may act on permits it reads.
	Held RegisterState = "held"
	// Claimed: Register.By waits to take the role; reads give no permit.
	Claimed RegisterState = "claim"
)

// ErrRegister is what ParseRegister returns for text that is no register of this
// version.
var ErrRegister = errors.New("not a register value")

// maxRegisterBytes is what fits one character string of a TXT record (RFC 1035,
// section 3.3.14).
const maxRegisterBytes = 255

// Register is the one value both sites agree through: the text of one TXT
// record, or the content of a witness. The zero value stands for "no register".
// Two values are the same if and only if their texts are: compare with ==.
type Register struct {
	// Epoch counts the moves of the active role; 1 is the first.
	Epoch uint64
	// Holder is the site that is active.
	Holder Site
	// State is Held, or Claimed while By waits.
	State RegisterState
	// By is the site that wrote this value; in state Claimed the claimant.
	By Site
	// Nonce is different in every value ever written: it tells whether one's own
	// write took place when its answer was lost.
	Nonce string
	// Config is the first 8 hexadecimal digits of the writer's configuration hash.
	Config string
	// At is the writer's wall clock, in whole seconds. It is for people: nothing
	// is decided by it.
	At int64
	// Paused: no site moves the role by itself.
	Paused bool
}

// IsZero says that there is no register.
func (r Register) IsZero() bool { return r == Register{} }

// Time is At as a time.
func (r Register) Time() time.Time { return time.Unix(r.At, 0).UTC() }

// String is the text in the record:
//
//	v=us1;epoch=7;holder=a;state=held;by=b;nonce=5f0c9d2e11aa73b4;cfg=0d9e8a77;at=1795540000
//
// and ";paused=1" behind it while paused. The zero register is "".
func (r Register) String() string {
	if r.IsZero() {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "v=us1;epoch=%d;holder=%s;state=%s;by=%s;nonce=%s;cfg=%s;at=%d",
		r.Epoch, r.Holder, r.State, r.By, r.Nonce, r.Config, r.At)
	if r.Paused {
		b.WriteString(";paused=1")
	}
	return b.String()
}

// Validate says what makes r unfit to be written.
func (r Register) Validate() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrRegister, what) }
	switch {
	case r.Epoch == 0:
		return bad("epoch 0")
	case !siteOK(string(r.Holder)):
		return bad("holder")
	case r.State != Held && r.State != Claimed:
		return bad("state")
	case !siteOK(string(r.By)):
		return bad("by")
	case r.State == Claimed && r.By == r.Holder:
		return bad("the holder claims its own role")
	case !hexOK(r.Nonce, 16, 32):
		return bad("nonce")
	case !hexOK(r.Config, 8, 8):
		return bad("cfg")
	case r.At < 0:
		return bad("at")
	case len(r.String()) > maxRegisterBytes:
		return bad("longer than one character string")
	}
	return nil
}

// ParseRegister reads what String wrote, and nothing else: the order of the
// fields is fixed, none is missing, none is unknown. An error Is ErrRegister.
func ParseRegister(text string) (Register, error) {
	if len(text) > maxRegisterBytes {
		return Register{}, fmt.Errorf("%w: %d bytes", ErrRegister, len(text))
	}
	var v, epoch, at, paused string
	var r Register
	into := []struct {
		key string
		set func(string)
	}{
		{"v", func(s string) { v = s }},
		{"epoch", func(s string) { epoch = s }},
		{"holder", func(s string) { r.Holder = Site(s) }},
		{"state", func(s string) { r.State = RegisterState(s) }},
		{"by", func(s string) { r.By = Site(s) }},
		{"nonce", func(s string) { r.Nonce = s }},
		{"cfg", func(s string) { r.Config = s }},
		{"at", func(s string) { at = s }},
		{"paused", func(s string) { paused = s }},
	}
	parts := strings.Split(text, ";")
	if len(parts) != len(into) && len(parts) != len(into)-1 {
		return Register{}, fmt.Errorf("%w: %q", ErrRegister, text)
	}
	for i, p := range parts {
		key, value, ok := strings.Cut(p, "=")
		if !ok || key != into[i].key {
			return Register{}, fmt.Errorf("%w: %q where %s= belongs", ErrRegister, p, into[i].key)
		}
		into[i].set(value)
	}
	if v != "us1" {
		return Register{}, fmt.Errorf("%w: version %q", ErrRegister, v)
	}
	var err error
	if r.Epoch, err = strconv.ParseUint(epoch, 10, 64); err != nil {
		return Register{}, fmt.Errorf("%w: epoch %q", ErrRegister, epoch)
	}
	if r.At, err = strconv.ParseInt(at, 10, 64); err != nil {
		return Register{}, fmt.Errorf("%w: at %q", ErrRegister, at)
	}
	r.Paused = paused == "1"
	if err := r.Validate(); err != nil {
		return Register{}, err
	}
	if r.String() != text { // leading zeros, paused=0 and the like
		return Register{}, fmt.Errorf("%w: %q is not how it is written", ErrRegister, text)
	}
	return r, nil
}

// NewNonce returns 16 hexadecimal digits that nobody wrote before.
func NewNonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func siteOK(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

func hexOK(s string, least, most int) bool {
	if len(s) < least || len(s) > most {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}
