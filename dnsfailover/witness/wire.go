package witness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"understudy/dnsfailover"
)

// protocol is the ALPN name. After the handshake the server sends one byte: the
// key is accepted. Then come one request and one answer, each a JSON object.
const protocol = "us-witness/1"

// welcome is that byte.
const welcome = 0x01

// maxMessageBytes bounds a request and an answer.
const maxMessageBytes = 4096

type request struct {
	// Op is read or swap.
	Op string `json:"op"`
	// Old and New are register values; Old is empty for "none".
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

type answer struct {
	// Register is the value, for read.
	Register string `json:"register,omitempty"`
	// Error is a word of words; empty is success.
	Error string `json:"error,omitempty"`
	// Text is for people.
	Text string `json:"text,omitempty"`
}

// words are the errors that cross the line.
var words = map[string]error{
	"conflict": dnsfailover.ErrConflict,
	"missing":  dnsfailover.ErrMissing,
	"bad":      dnsfailover.ErrBadRegister,
	"refused":  dnsfailover.ErrRefused,
}

// failed is the word for everything else: the outcome of a change is unknown.
const failed = "failed"

func errorAnswer(err error) answer {
	for w, e := range words {
		if errors.Is(err, e) {
			return answer{Error: w, Text: err.Error()}
		}
	}
	return answer{Error: failed, Text: err.Error()}
}

// err is the error in an answer; unknown is what failed and words of a later
// version mean.
func (a answer) err(unknown error) error {
	if a.Error == "" {
		return nil
	}
	kind, ok := words[a.Error]
	if !ok {
		kind = unknown
	}
	return fmt.Errorf("%w: the witness says: %.200q", kind, a.Text)
}

// parseOld reads a register value where the empty one stands for "none".
func parseOld(text string) (dnsfailover.Register, error) {
	if text == "" {
		return dnsfailover.Register{}, nil
	}
	return dnsfailover.ParseRegister(text)
}

func receive(c net.Conn, v any) error {
	if err := json.NewDecoder(io.LimitReader(c, maxMessageBytes)).Decode(v); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

func send(c net.Conn, v any) error {
	out, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if _, err := c.Write(append(out, '\n')); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
