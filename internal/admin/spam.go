package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"understudy/spamsync/learn"
)

// maxSpamBytes bounds a message that is to be judged or learned here.
const maxSpamBytes = 64 << 20

// Spam is what operators see and teach of the spam filter. Methods may be called
// concurrently; all may be retried.
type Spam interface {
	// SpamStatus returns the state of this moment.
	SpamStatus(ctx context.Context) (SpamStatus, error)
	// Learn takes a message to be learned as class, "spam" or "ham". Errors are
	// those of learn.Queue, or a Conflict where nothing learns here.
	Learn(ctx context.Context, class string, message io.Reader) (learn.Added, error)
	// CheckSpam has the engine judge a message, without side effects where the
	// engine can do that.
	CheckSpam(ctx context.Context, q SpamQuestion, message []byte) (SpamAnswer, error)
}

// SpamQuestion is the envelope of a message to be judged.
type SpamQuestion struct {
	Client      netip.Addr
	HELO        string
	ReverseName string
	Sender      string
	Recipients  []string
}

// SpamAnswer is a judgement with its reasons.
type SpamAnswer struct {
	Engine string `json:"engine"`
	// Action is in the engine's own words where it has some: "add header".
	Action   string  `json:"action"`
	Score    float64 `json:"score"`
	Required float64 `json:"required"`
	// Text is what a sender would be told.
	Text string `json:"text,omitempty"`
	// Remembered says that asking had side effects, as a real message has.
	Remembered bool         `json:"remembered,omitempty"`
	Symbols    []SpamSymbol `json:"symbols"`
}

// SpamSymbol is one finding.
type SpamSymbol struct {
	Name  string  `json:"name"`
	Score float64 `json:"score"`
	// Why explains it, and has what was found.
	Why string `json:"why,omitempty"`
}

// SpamStatus is the filter at a glance.
type SpamStatus struct {
	Engine    string `json:"engine"`
	OnFailure string `json:"on_failure"`
	// Learn is nil where nothing learns here.
	Learn *learn.Status `json:"learn,omitempty"`
	// Greylist is how many greylist records wait here for the shared state.
	Greylist int `json:"greylist_waiting,omitempty"`
	// Replica is nil where the shared state is not replicated by this daemon.
	Replica *SpamReplica `json:"replica,omitempty"`
	// Parity is nil before the first comparison.
	Parity *SpamParity `json:"parity,omitempty"`
}

// SpamParity is how the last comparison of both sites ended.
type SpamParity struct {
	At time.Time `json:"at"`
	// Result is "equal", "noise", "different" or "failed".
	Result  string `json:"result"`
	Summary string `json:"summary"`
}

// LearnAnswer says what became of a message.
type LearnAnswer struct {
	Result learn.Added `json:"result"`
}

func (s *Server) spamStatus(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Spam == nil {
		return notConfigured("a spam filter")
	}
	st, err := s.deps.Spam.SpamStatus(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, st)
}

func (s *Server) learnSpam(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Spam == nil {
		return notConfigured("a spam filter")
	}
	class := r.URL.Query().Get("class")
	if class != "spam" && class != "ham" {
		return badRequest("class: %.40q is neither spam nor ham", class)
	}
	added, err := s.deps.Spam.Learn(r.Context(), class, deadlineReader{http.MaxBytesReader(w, r.Body, maxSpamBytes), http.NewResponseController(w)})
	if err == nil && added == learn.Queued {
		s.audit(r.Context(), "learn", nil, 1, nil, slog.String("selection", class))
	}
	switch {
	case errors.Is(err, learn.ErrFull):
		return &Error{Status: http.StatusInsufficientStorage, Code: CodeFull, Text: err.Error()}
	case errors.Is(err, learn.ErrTooLong):
		return &Error{Status: http.StatusRequestEntityTooLarge, Code: CodeTooLarge, Text: err.Error()}
	case errors.Is(err, learn.ErrEmpty):
		return badRequest("%v", err)
	case err != nil:
		return err
	}
	return writeJSON(w, LearnAnswer{Result: added})
}

func (s *Server) checkSpam(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Spam == nil {
		return notConfigured("a spam filter")
	}
	q := r.URL.Query()
	question := SpamQuestion{
		HELO: q.Get("helo"), ReverseName: q.Get("rdns"), Sender: q.Get("from"), Recipients: q["rcpt"],
	}
	if c := q.Get("client"); c != "" {
		addr, err := netip.ParseAddr(c)
		if err != nil {
			return badRequest("client: %.80q is no IP address", c)
		}
		question.Client = addr
	}
	raw, err := io.ReadAll(deadlineReader{http.MaxBytesReader(w, r.Body, maxSpamBytes), http.NewResponseController(w)})
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	answer, err := s.deps.Spam.CheckSpam(r.Context(), question, raw)
	if err != nil {
		return err
	}
	if answer.Symbols == nil {
		answer.Symbols = []SpamSymbol{}
	}
	return writeJSON(w, answer)
}

// SpamStatus returns the state of the spam filter.
func (c *Client) SpamStatus(ctx context.Context) (SpamStatus, error) {
	var out SpamStatus
	return out, c.call(ctx, http.MethodGet, "/v1/spam/status", nil, &out)
}

// Learn gives a message to be learned as class, "spam" or "ham".
func (c *Client) Learn(ctx context.Context, class string, message io.Reader) (learn.Added, error) {
	var out LearnAnswer
	body, err := c.do(ctx, http.MethodPost, "/v1/spam/learn?class="+url.QueryEscape(class), "message/rfc822", message)
	if err != nil {
		return "", err
	}
	err = decodeAnswer(body, &out)
	return out.Result, err
}

// CheckSpam has the daemon's engine judge a message.
func (c *Client) CheckSpam(ctx context.Context, q SpamQuestion, message io.Reader) (SpamAnswer, error) {
	var out SpamAnswer
	v := url.Values{"helo": {q.HELO}, "rdns": {q.ReverseName}, "from": {q.Sender}, "rcpt": q.Recipients}
	if q.Client.IsValid() {
		v.Set("client", q.Client.String())
	}
	body, err := c.do(ctx, http.MethodPost, "/v1/spam/check?"+v.Encode(), "message/rfc822", message)
	if err != nil {
		return out, err
	}
	err = decodeAnswer(body, &out)
	return out, err
}
