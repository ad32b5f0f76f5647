package learn

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"understudy/spamsync"
)

// The kinds of records in the log.
const (
	// kindMessage is a message to learn: a line of JSON (head), then the message.
	kindMessage = 'L'
	// kindTaught is a list of taught messages: mark.
	kindTaught = 'T'
	// kindDropped is one message (mark) that will not be learned as that class.
	kindDropped = 'X'
)

// head is what is kept with a message.
type head struct {
	Digest string `json:"d"`
	Class  string `json:"c"`
	Added  int64  `json:"t"` // Unix seconds
}

// mark says that a message is, or will not be, of a class.
type mark struct {
	Digest string `json:"d"`
	Class  string `json:"c"`
	At     int64  `json:"t"` // Unix seconds
}

// parseClass reads the name of a class that can be taught.
func parseClass(s string) (spamsync.Class, bool) {
	switch s {
	case spamsync.Spam.String():
		return spamsync.Spam, true
	case spamsync.Ham.String():
		return spamsync.Ham, true
	}
	return spamsync.Unlearned, false
}

// splitMessage takes a message record apart.
func splitMessage(payload []byte) (head, []byte, error) {
	var h head
	line, body, ok := bytes.Cut(payload, []byte("\n"))
	if !ok {
		return h, nil, errors.New("record without a message")
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return h, nil, fmt.Errorf("decode record: %w", err)
	}
	if _, ok := parseClass(h.Class); !ok || h.Digest == "" {
		return h, nil, fmt.Errorf("record of class %q", h.Class)
	}
	return h, body, nil
}

func (h head) added() time.Time { return time.Unix(h.Added, 0) }
