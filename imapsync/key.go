package imapsync

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strconv"
	"strings"
)

// Key recognises a message by content where UIDs say nothing: 128 bits of SHA-256
// over Message-ID, Date, From, Subject, To and the size; the last bit is set where
// there is no Message-ID. The zero Key: not known. Where a key is weak, or more than
// one message has it, bodies are compared too.
type Key [16]byte

// KeyFields are the header fields a Key is made of, for
// BODY.PEEK[HEADER.FIELDS (...)].
var KeyFields = [...]string{"Message-ID", "Date", "From", "Subject", "To"}

// maxHeaderBytes bounds what is read of a header.
const maxHeaderBytes = 256 << 10

// NewKey makes the key of a message from its header (or from only KeyFields of it,
// in any order; what follows the first empty line is not looked at) and its
// RFC822.SIZE. White space is folded and the first field of a name counts, so a
// server that unfolds lines gives the same key.
func NewKey(header []byte, size int64) Key {
	var values [len(KeyFields)]string
	var seen [len(KeyFields)]bool
	if len(header) > maxHeaderBytes {
		header = header[:maxHeaderBytes]
	}
	current := -1
	for len(header) > 0 {
		var line []byte
		if i := bytes.IndexByte(header, '\n'); i >= 0 {
			line, header = header[:i], header[i+1:]
		} else {
			line, header = header, nil
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			if current >= 0 {
				values[current] += " " + string(line)
			}
			continue
		}
		current = -1
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		for i, f := range KeyFields {
			if !seen[i] && strings.EqualFold(f, string(bytes.TrimSpace(name))) {
				current, seen[i], values[i] = i, true, string(value)
			}
		}
	}
	h := sha256.New()
	for _, v := range values {
		io.WriteString(h, strings.Join(strings.Fields(v), " ")) //nolint:errcheck // a hash never fails
		h.Write([]byte{0})
	}
	io.WriteString(h, strconv.FormatInt(size, 10)) //nolint:errcheck // a hash never fails
	var k Key
	copy(k[:], h.Sum(nil))
	if k == (Key{}) {
		k[0] = 1
	}
	k[len(k)-1] &^= 1
	if strings.TrimSpace(values[0]) == "" {
		k[len(k)-1] |= 1
	}
	return k
}

// weak says that the message has no Message-ID: another one may have the same key.
func (k Key) weak() bool { return k[len(k)-1]&1 != 0 }

// Known says whether there is a key.
func (k Key) Known() bool { return k != Key{} }

// String is hexadecimal.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// keyReader makes the key of a body that passes through it: nobody has to read
// the header twice.
type keyReader struct {
	r      io.Reader
	size   int64
	header []byte
	ended  bool
}

func (k *keyReader) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if !k.ended {
		from := max(len(k.header)-3, 0)
		k.header = append(k.header, p[:min(n, maxHeaderBytes-len(k.header))]...)
		tail := k.header[from:]
		k.ended = len(k.header) >= maxHeaderBytes || bytes.Contains(tail, []byte("\n\r\n")) || bytes.Contains(tail, []byte("\n\n"))
	}
	return n, err
}

// key is valid once the body has passed.
func (k *keyReader) key() Key { return NewKey(k.header, k.size) }

// KeyOf reads the header of a message and makes its key.
func KeyOf(r io.Reader, size int64) (Key, error) {
	var header bytes.Buffer
	br := bufio.NewReader(io.LimitReader(r, maxHeaderBytes))
	for {
		line, err := br.ReadBytes('\n')
		header.Write(line)
		if len(bytes.TrimRight(line, "\r\n")) == 0 || err != nil {
			if err != nil && !errors.Is(err, io.EOF) {
				return Key{}, err
			}
			return NewKey(header.Bytes(), size), nil
		}
	}
}

func decodeKey(k *Key, text string) error {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(k) {
		return errors.New("content key is not 32 hexadecimal digits")
	}
	copy(k[:], raw)
	return nil
}
