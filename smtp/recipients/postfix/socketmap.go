package postfix

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxRequestBytes bounds one socketmap request and one policy line; the longest
// address Postfix takes is far shorter.
const maxRequestBytes = 16 << 10

// errNetstring is wrapped for what is no netstring.
var errNetstring = errors.New("malformed netstring")

// readNetstring reads "LENGTH:BYTES,". io.EOF means that there is no more; an end
// within a netstring is io.ErrUnexpectedEOF.
func readNetstring(r *bufio.Reader) (string, error) {
	n := 0
	for digits := 0; ; digits++ {
		c, err := r.ReadByte()
		if err != nil {
			if digits > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		if c == ':' && digits > 0 {
			break
		}
		// A length begins with 0 only if it is 0.
		if c < '0' || c > '9' || digits > 0 && n == 0 {
			return "", fmt.Errorf("%w: length", errNetstring)
		}
		if n = n*10 + int(c-'0'); n > maxRequestBytes {
			return "", fmt.Errorf("%w: more than %d bytes", errNetstring, maxRequestBytes)
		}
	}
	buf := make([]byte, n+1)
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	if buf[n] != ',' {
		return "", fmt.Errorf("%w: no comma at the end", errNetstring)
	}
	return string(buf[:n]), nil
}

// appendNetstring is the reverse of readNetstring.
func appendNetstring(b []byte, s string) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	b = append(b, s...)
	return append(b, ',')
}

// socketmap serves one connection.
func (s *Server) socketmap(ctx context.Context, r *bufio.Reader, w io.Writer) error {
	request, err := readNetstring(r)
	if err != nil {
		return err
	}
	name, key, ok := strings.Cut(request, " ")
	if !ok {
		return fmt.Errorf("%w: request has no key", errNetstring)
	}
	_, err = w.Write(appendNetstring(nil, s.lookup(ctx, name, key)))
	return err
}

// lookup answers one request as in socketmap_table(5).
func (s *Server) lookup(ctx context.Context, name, key string) string {
	switch name {
	case "domains":
		if s.deps.Domains.Has(key) {
			return "OK " + key
		}
		return "NOTFOUND "
	case "recipients":
		v, err := s.recipient(ctx, key)
		if err != nil {
			s.log.Warn("recipient not looked up", "address", key, "err", err)
		}
		switch v {
		case exists:
			return "OK " + key
		case unsure:
			return "TEMP recipient cannot be verified now"
		case notOurs, unknown:
		}
		return "NOTFOUND "
	case "route":
		return s.route(ctx, key)
	}
	return "PERM no such map: " + printable(name)
}

// route answers for a domain, and for an address by its domain: Postfix asks a
// socketmap for the whole address only, and never for its parts.
func (s *Server) route(ctx context.Context, key string) string {
	domain := key[strings.LastIndexByte(key, '@')+1:]
	if s.deps.Route == nil || !s.deps.Domains.Has(domain) {
		return "NOTFOUND "
	}
	hop, err := s.deps.Route(ctx, domain)
	if err == nil && hop != "" {
		hop, err = Transport(hop)
	}
	switch {
	case err != nil:
		s.log.Warn("no route", "domain", domain, "err", err)
		return "TEMP there is no route at the moment"
	case hop == "":
		return "NOTFOUND "
	}
	return "OK " + hop
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 100)])
}
