package engine

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"understudy/smtp"
	"understudy/spamsync/engine/link"
)

// SealField is the header field that carries a sealed verdict.
const SealField = "X-Understudy-Verdict"

// ErrSeal is what is wrong with a seal that does not hold.
var ErrSeal = errors.New("sealed verdict does not hold")

// Sealed is a verdict as it travels to the other site, under a key both share.
type Sealed struct {
	// ID is the queue id at the site that judged.
	ID string
	// Client is who brought the message there.
	Client netip.Addr
	// Action is smtp.Accept or smtp.Quarantine; Spam marks it.
	Action          smtp.Action
	Spam            bool
	Score, Required float64
	Engine          string
	// Time is when it was judged, in whole seconds.
	Time time.Time
}

// minKeyBytes is the shortest key.
const minKeyBytes = 16

// ReadKey reads the key both sites share; white space around it does not count.
func ReadKey(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read verdict key: %w", err)
	}
	key := bytes.TrimSpace(raw)
	if len(key) < minKeyBytes {
		return nil, fmt.Errorf("verdict key in %s is shorter than %d bytes", path, minKeyBytes)
	}
	return key, nil
}

// Seal returns the header field, ended by CRLF, for the message that body is. The
// seal covers the verdict, the sender and the message's body: it fits no other
// message.
func Seal(key []byte, s Sealed, sender string, body io.ReadSeeker) (string, error) {
	digest, err := bodyDigest(body)
	if err != nil {
		return "", err
	}
	text := s.text() + "; bh=" + digest
	return smtp.FormatHeader(SealField, strings.ReplaceAll(text, "; bh=", ";\n\tbh=")+";\n\ts="+sign(key, text, sender)), nil
}

func (s Sealed) text() string {
	spam := "no"
	if s.Spam {
		spam = "yes"
	}
	action := "accept"
	if s.Action == smtp.Quarantine {
		action = "quarantine"
	}
	word := func(w string) string {
		if w = link.Name(w); w == "" {
			return "-"
		}
		return w
	}
	client := "-"
	if s.Client.IsValid() {
		client = s.Client.Unmap().WithZone("").String()
	}
	return fmt.Sprintf("v=1; id=%s; ip=%s; action=%s; spam=%s; score=%.2f; required=%.2f; engine=%s; t=%d",
		word(s.ID), client, action, spam, s.Score, s.Required, word(s.Engine), s.Time.Unix())
}

func sign(key []byte, text, sender string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("understudy verdict\n" + text + "\n" + sender))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Verify opens the value of a SealField. It holds for this sender and body only,
// and for maxAge; an error wraps ErrSeal, or is one of reading body.
func Verify(key []byte, value, sender string, body io.ReadSeeker, now time.Time, maxAge time.Duration) (Sealed, error) {
	bad := func(what string) (Sealed, error) { return Sealed{}, fmt.Errorf("%w: %s", ErrSeal, what) }
	text := strings.Join(strings.Fields(value), " ")
	text, mac, ok := strings.Cut(text, "; s=")
	if !ok || len(text) > 1024 || !hmac.Equal([]byte(mac), []byte(sign(key, text, sender))) {
		return bad("signature")
	}
	// From here on the words are those of someone who has the key.
	text, digest, _ := strings.Cut(text, "; bh=")
	s, err := parseSealed(text)
	if err != nil {
		return bad(err.Error())
	}
	const skew = time.Hour
	if age := now.Sub(s.Time); age > maxAge || age < -skew {
		return bad("age " + age.Round(time.Second).String())
	}
	got, err := bodyDigest(body)
	if err != nil {
		return Sealed{}, err
	}
	if got != digest {
		return bad("body")
	}
	return s, nil
}

func parseSealed(text string) (Sealed, error) {
	words := make(map[string]string)
	for part := range strings.SplitSeq(text, "; ") {
		name, value, ok := strings.Cut(part, "=")
		if _, twice := words[name]; !ok || twice {
			return Sealed{}, fmt.Errorf("malformed part %q", link.Text(part, 60))
		}
		words[name] = value
	}
	if words["v"] != "1" {
		return Sealed{}, fmt.Errorf("unknown version %q", link.Text(words["v"], 20))
	}
	s := Sealed{ID: words["id"], Engine: words["engine"], Spam: words["spam"] == "yes"}
	switch words["action"] {
	case "accept":
	case "quarantine":
		s.Action = smtp.Quarantine
	default:
		return Sealed{}, fmt.Errorf("unknown action %q", link.Text(words["action"], 20))
	}
	seconds, err1 := strconv.ParseInt(words["t"], 10, 64)
	var err2, err3, err4 error
	s.Score, err2 = strconv.ParseFloat(words["score"], 64)
	s.Required, err3 = strconv.ParseFloat(words["required"], 64)
	if ip := words["ip"]; ip != "-" {
		s.Client, err4 = netip.ParseAddr(ip)
	}
	if err := errors.Join(err1, err2, err3, err4); err != nil || math.IsNaN(s.Score+s.Required) || math.IsInf(s.Score+s.Required, 0) {
		return Sealed{}, errors.New("malformed number")
	}
	s.Time = time.Unix(seconds, 0)
	return s, nil
}

// bodyDigest hashes what stands behind the header, without empty lines at its
// end: those may change on the way (RFC 6376, section 3.4.3).
func bodyDigest(r io.ReadSeeker) (string, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("rewind message: %w", err)
	}
	d := digester{h: sha256.New(), prev: [2]byte{'\n', '\n'}}
	if _, err := io.CopyBuffer(&d, struct{ io.Reader }{r}, make([]byte, 32<<10)); err != nil {
		return "", fmt.Errorf("read message: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(d.h.Sum(nil)), nil
}

// digester skips the header of what is written to it.
type digester struct {
	h    hash.Hash
	body bool
	held int // CRLFs that may be the last ones
	cr   bool
	prev [2]byte // the last bytes of the header; before the first, line ends
}

func (d *digester) Write(p []byte) (int, error) {
	n := len(p)
	if !d.body {
		i := d.headerEnd(p)
		if i < 0 {
			return n, nil
		}
		d.body, p = true, p[i:]
	}
	for len(p) > 0 {
		if d.cr {
			d.cr = false
			if p[0] == '\n' {
				d.held++
				p = p[1:]
				continue
			}
			d.flush()
			d.h.Write([]byte{'\r'})
		}
		if p[0] == '\r' {
			d.cr, p = true, p[1:]
			continue
		}
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			i = len(p)
		}
		d.flush()
		d.h.Write(p[:i])
		p = p[i:]
	}
	return n, nil
}

func (d *digester) flush() {
	for ; d.held > 0; d.held-- {
		d.h.Write([]byte("\r\n"))
	}
}

// headerEnd returns where the body begins in p, or -1.
func (d *digester) headerEnd(p []byte) int {
	for i, c := range p {
		// An empty line: LF behind LF, or behind LF CR.
		if c == '\n' && (d.prev[1] == '\n' || d.prev[1] == '\r' && d.prev[0] == '\n') {
			return i + 1
		}
		d.prev[0], d.prev[1] = d.prev[1], c
	}
	return -1
}
