package smtp

// Action is what a filter wants done with a message.
type Action uint8

// The actions, mildest first.
const (
	// Accept: take it, with the verdict's headers.
	Accept Action = iota
	// Quarantine: take it, but hold it until an operator decides.
	Quarantine
	// Defer: 4xx, the sender tries again (greylisting, a filter's soft reject).
	Defer
	// Reject: 5xx.
	Reject
)

// Verdict is a filter's judgement. The zero value accepts.
type Verdict struct {
	Action Action `json:"action"`
	// Code, Enhanced ("5.7.1") and Text are the reply to Defer and Reject; zero
	// values let the session use 451 4.7.1 and 554 5.7.1 with a generic text.
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"`
	// Engine names who judged; Score and Required are in its own scale.
	Engine   string   `json:"engine,omitempty"`
	Score    float64  `json:"score,omitempty"`
	Required float64  `json:"required,omitempty"`
	Symbols  []Symbol `json:"symbols,omitempty"`
	// Spam says that an accepted message is marked as spam: the engine said "add
	// header" or "rewrite subject".
	Spam bool `json:"spam,omitempty"`
	// Header is put in front of the message: whole lines, each ended by CRLF.
	Header string `json:"-"`
	// Edits change the header of the message itself; its body stays as it is.
	Edits []HeaderEdit `json:"-"`
}

// Symbol is one named finding of a filter.
type Symbol struct {
	Name  string  `json:"name"`
	Score float64 `json:"score"`
}
