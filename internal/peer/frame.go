package peer

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// The versions of the RPC protocol that this program speaks. A site is upgraded
// while the other is not: both speak the newest version they have in common.
const (
	oldestVersion = 1
	newestVersion = 1
)

// Bounds of a frame.
const (
	// MaxFrameBytes bounds a question or an answer.
	MaxFrameBytes = 1 << 20
	// maxHelloBytes bounds what is read before the versions are agreed.
	maxHelloBytes = 256 << 10
)

// The kinds of message.
const (
	kindHello  = "hello"
	kindPing   = "ping"
	kindPong   = "pong"
	kindCall   = "call"
	kindReply  = "reply"
	kindConfig = "config"
)

// The codes of a reply that is no result.
const (
	codeError   = "error"
	codeUnknown = "unknown_method"
	codeBusy    = "busy"
)

// message is one frame: its length in four bytes, most significant first, and
// JSON. Unknown kinds and fields are ignored, so that a newer site can add some.
type message struct {
	Kind string `json:"kind"`
	// ID pairs a reply with its call, and a pong with its ping.
	ID uint64 `json:"id,omitempty"`
	// Method and LimitMS are a call's: how long the caller waits.
	Method  string          `json:"method,omitempty"`
	LimitMS int64           `json:"limit_ms,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
	// Code and Text are a reply's that is no result.
	Code string `json:"code,omitempty"`
	Text string `json:"text,omitempty"`
	// Received and Sent are a pong's: Unix nanoseconds of the answering clock.
	Received int64 `json:"received,omitempty"`
	Sent     int64 `json:"sent,omitempty"`
	// Hello is the first message of either side; Config replaces its summary.
	Hello  *hello            `json:"hello,omitempty"`
	Config map[string]string `json:"config,omitempty"`
}

// hello is what a site says about itself.
type hello struct {
	Site    string            `json:"site"`
	Program string            `json:"program"`
	Oldest  int               `json:"oldest"`
	Newest  int               `json:"newest"`
	Config  map[string]string `json:"config,omitempty"`
}

// agree returns the newest version both ranges have.
func agree(oldest, newest int, theirs *hello) (int, error) {
	v := min(newest, theirs.Newest)
	if v < oldest || v < theirs.Oldest {
		return 0, fmt.Errorf("%w: this site speaks %d to %d, the other %d to %d; upgrade the older one",
			ErrVersion, oldest, newest, theirs.Oldest, theirs.Newest)
	}
	return v, nil
}

// encode makes a frame.
func encode(m *message) ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	if len(body) > MaxFrameBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooBig, len(body), MaxFrameBytes)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	return append(frame, body...), nil
}

// readFrame reads one message of at most limit bytes. Memory is taken as the
// bytes arrive, not as the length promises.
func readFrame(r io.Reader, limit int) (*message, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if int64(n) > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooBig, n, limit)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return nil, err
	}
	if len(body) < int(n) {
		return nil, io.ErrUnexpectedEOF
	}
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("decode message: %w", err)
	}
	return &m, nil
}
