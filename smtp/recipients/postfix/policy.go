package postfix

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxAttributes bounds one policy request; Postfix 3.10 sends about 40.
const maxAttributes = 200

// errPolicy is wrapped for what is no policy request.
var errPolicy = errors.New("malformed policy request")

// readPolicy reads "name=value" lines up to an empty one. io.EOF means that there
// is no more. Where a name comes twice the first counts.
func readPolicy(r *bufio.Reader) (map[string]string, error) {
	attrs := make(map[string]string)
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("%w: line too long", errPolicy)
		case errors.Is(err, io.EOF) && (n > 0 || len(line) > 0):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		text := string(line[:len(line)-1])
		if text == "" {
			if n == 0 {
				return nil, fmt.Errorf("%w: empty", errPolicy)
			}
			return attrs, nil
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: line without a name", errPolicy)
		}
		if n == maxAttributes {
			return nil, fmt.Errorf("%w: more than %d attributes", errPolicy, maxAttributes)
		}
		if _, there := attrs[name]; !there {
			attrs[name] = value
		}
	}
}

// policy serves one request of a connection.
func (s *Server) policy(ctx context.Context, r *bufio.Reader, w io.Writer) error {
	attrs, err := readPolicy(r)
	if err != nil {
		return err
	}
	if got := attrs["request"]; got != "smtpd_access_policy" {
		return fmt.Errorf("%w: request is %q", errPolicy, printable(got))
	}
	_, err = io.WriteString(w, "action="+s.action(ctx, attrs)+"\n\n")
	return err
}

// action decides at RCPT; Postfix puts the address in front of the text. DUNNO
// leaves the decision to the restrictions that follow: relaying, above all.
func (s *Server) action(ctx context.Context, attrs map[string]string) string {
	if attrs["protocol_state"] != "RCPT" {
		return "DUNNO"
	}
	address := attrs["recipient"]
	v, err := s.recipient(ctx, address)
	if err != nil {
		s.log.Warn("recipient not looked up", "address", address, "err", err)
	}
	switch v {
	case unknown:
		return "550 5.1.1 User unknown"
	case unsure:
		return "450 4.1.1 Recipient cannot be verified now, please try later"
	case exists, notOurs:
	}
	return "DUNNO"
}
