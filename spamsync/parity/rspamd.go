package parity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"understudy/spamsync/engine/link"
)

// maxAnswerBytes bounds an answer of Rspamd.
const maxAnswerBytes = 32 << 20

// Judgement is what an engine says of a message.
type Judgement struct {
	Action   string
	Score    float64
	Required float64
	Text     string
	Symbols  map[string]Symbol
}

// Symbol is one finding of a judgement.
type Symbol struct {
	Score float64
	// Description and Options explain it; they are not compared.
	Description string
	Options     []string
}

// Rspamd asks one Rspamd without side effects. Its methods may be called
// concurrently.
type Rspamd struct {
	// URL is the normal worker, Controller the controller: "http://host:port". The
	// normal worker may also be unix:///path.
	URL, Controller string
	// PasswordFile may be empty.
	PasswordFile string
	// Disable holds further symbols that must not run.
	Disable []string
	Timeout time.Duration

	client http.Client
}

// sideEffects are the symbols that write: greylist, rates, replies, history,
// reputation and neural training.
func sideEffects() []string {
	list := []string{
		"GREYLIST_SAVE", "GREYLIST_CHECK", "RATELIMIT_CHECK", "RATELIMIT_UPDATE", "HISTORY_SAVE", "NEURAL_LEARN",
		"REPLIES_CHECK", "REPLIES_SET", "CLICKHOUSE_COLLECT", "ELASTIC_COLLECT", "DMARC_CALLBACK_REPORT",
	}
	for _, rule := range []string{
		"IP_REPUTATION", "IP_REPUTATION_SPAM", "IP_REPUTATION_HAM", "GENERIC_REPUTATION", "SPF_REPUTATION", "SPF_REPUTATION_HAM",
		"SPF_REPUTATION_SPAM", "DKIM_REPUTATION", "DKIM_REPUTATION_HAM", "DKIM_REPUTATION_SPAM", "URL_REPUTATION", "SENDER_REPUTATION",
		"SENDER_REPUTATION_HAM", "SENDER_REPUTATION_SPAM", "ASN_REPUTATION",
	} {
		list = append(list, rule+"_IDEMPOTENT", rule+"_POST")
	}
	return list
}

// open prepares the connections.
func (r *Rspamd) open() {
	r.client.Transport = &http.Transport{
		MaxIdleConnsPerHost: probeWorkers, IdleConnTimeout: time.Minute, DisableCompression: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if path, ok := strings.CutPrefix(r.URL, "unix:"); ok && strings.HasPrefix(address, "socket.invalid:") {
				network, address = "unix", "/"+strings.TrimLeft(path, "/")
			}
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		},
	}
}

// NewRspamd returns what asks the normal worker at url; the other fields may be set
// afterwards.
func NewRspamd(url string, timeout time.Duration) *Rspamd {
	r := &Rspamd{URL: url, Timeout: timeout}
	r.open()
	return r
}

// Close ends idle connections.
func (r *Rspamd) Close() { r.client.CloseIdleConnections() }

// Judge has m judged; nothing is remembered of it.
func (r *Rspamd) Judge(ctx context.Context, m Message) (Judgement, error) {
	settings, err := json.Marshal(map[string][]string{"symbols_disabled": append(sideEffects(), r.Disable...)})
	if err != nil {
		return Judgement{}, fmt.Errorf("encode settings: %w", err)
	}
	base := strings.TrimRight(r.URL, "/")
	if strings.HasPrefix(base, "unix:") {
		base = "http://socket.invalid"
	}
	header := http.Header{"Settings": {string(settings)}, "Content-Type": {"text/plain"}, "User-Agent": {"understudy"}}
	set := func(name, value string) {
		if value != "" {
			header.Set(name, link.Text(value, 1024))
		}
	}
	if m.Client.IsValid() {
		set("IP", m.Client.String())
	}
	set("Helo", m.HELO)
	set("Hostname", m.ReverseName)
	set("From", "<"+m.Sender+">")
	set("Rcpt", m.Recipient)
	raw, _, err := r.ask(ctx, http.MethodPost, base+"/checkv2", header, m.Raw)
	if err != nil {
		return Judgement{}, err
	}
	return parseJudgement(raw)
}

func parseJudgement(raw []byte) (Judgement, error) {
	var a struct {
		Action   string  `json:"action"`
		Score    float64 `json:"score"`
		Required float64 `json:"required_score"`
		Symbols  map[string]struct {
			Score       float64  `json:"score"`
			Description string   `json:"description"`
			Options     []string `json:"options"`
		} `json:"symbols"`
		Messages json.RawMessage `json:"messages"`
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return Judgement{}, fmt.Errorf("decode answer: %w", err)
	}
	if a.Action == "" {
		return Judgement{}, errors.New("answer has no action")
	}
	j := Judgement{Action: a.Action, Score: a.Score, Required: a.Required, Symbols: make(map[string]Symbol, len(a.Symbols))}
	for name, s := range a.Symbols {
		j.Symbols[name] = Symbol{Score: s.Score, Description: s.Description, Options: s.Options}
	}
	var words struct {
		Text string `json:"smtp_message"`
	}
	if json.Unmarshal(a.Messages, &words) == nil { // an older Rspamd sends a list
		j.Text = words.Text
	}
	return j, nil
}

// controller asks the controller for JSON, or for what v is: *[]byte takes it raw.
func (r *Rspamd) controller(ctx context.Context, path string, header http.Header, v any) (http.Header, error) {
	if header == nil {
		header = http.Header{}
	}
	raw, h, err := r.ask(ctx, http.MethodGet, strings.TrimRight(r.Controller, "/")+path, header, nil)
	if err != nil {
		return nil, err
	}
	if out, ok := v.(*[]byte); ok {
		*out = raw
		return h, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, fmt.Errorf("decode %s: %w", path, err)
	}
	return h, nil
}

func (r *Rspamd) ask(ctx context.Context, method, url string, header http.Header, body []byte) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, errors.New("malformed URL")
	}
	req.Header = header
	if r.PasswordFile != "" {
		secret, err := os.ReadFile(r.PasswordFile)
		if err != nil {
			return nil, nil, fmt.Errorf("read password: %w", err)
		}
		req.Header.Set("Password", strings.TrimSpace(string(secret)))
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("ask rspamd: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, nil, fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("ask rspamd: %s answers %s", req.URL.Path, link.Text(resp.Status, 120))
	}
	return raw, resp.Header, nil
}
