package learn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"understudy/spamsync"
	"understudy/spamsync/engine/link"
)

// maxAnswerBytes bounds what is read of a controller's answer.
const maxAnswerBytes = 64 << 10

// RspamdTeacher teaches Rspamd through its controller.
type RspamdTeacher struct {
	url          string
	passwordFile string
	http         *http.Client
}

var _ Teacher = (*RspamdTeacher)(nil)

// NewRspamd returns a teacher for the controller at base ("http://host:11334").
// passwordFile may be empty; it is read for every message. It dials nothing.
func NewRspamd(base, passwordFile string) (*RspamdTeacher, error) {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%q is not http://host:port", link.Redact(base))
	}
	return &RspamdTeacher{
		url: strings.TrimRight(base, "/"), passwordFile: passwordFile,
		http: &http.Client{Transport: &http.Transport{IdleConnTimeout: time.Minute, DisableCompression: true}},
	}, nil
}

// Close ends idle connections.
func (t *RspamdTeacher) Close() { t.http.CloseIdleConnections() }

// Teach implements Teacher.
func (t *RspamdTeacher) Teach(ctx context.Context, class spamsync.Class, _ string, message []byte) (Outcome, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+"/learn"+class.String(), bytes.NewReader(message))
	if err != nil {
		return 0, fmt.Errorf("build request: %w", err)
	}
	req.Header.Set("Content-Type", "message/rfc822")
	if t.passwordFile != "" {
		secret, err := os.ReadFile(t.passwordFile)
		if err != nil {
			return 0, away(fmt.Errorf("read password of rspamd: %w", err))
		}
		req.Header.Set("Password", strings.TrimSpace(string(secret)))
	}
	resp, err := t.http.Do(req)
	if err != nil {
		return 0, away(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return 0, away(fmt.Errorf("read answer: %w", err))
	}
	return rspamdAnswer(resp.StatusCode, resp.Status, body)
}

// rspamdAnswer reads what the controller said: 200 is learned; 204 says that there
// is nothing to learn from it (too few words, or sure already), 208 that it was
// learned before.
func rspamdAnswer(status int, line string, body []byte) (Outcome, error) {
	var a struct {
		Success bool   `json:"success"`
		Error   string `json:"error"`
	}
	isJSON := json.Unmarshal(body, &a) == nil
	text := a.Error
	if text == "" {
		text = line
	}
	text = link.Text(text, 200)
	switch {
	case status == http.StatusOK && isJSON && a.Success && a.Error == "":
		return Learned, nil
	case status == http.StatusOK:
		return 0, errors.New("answer says neither learned nor why not: " + text)
	case status == http.StatusNoContent || status == http.StatusAlreadyReported:
		return Known, nil
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return 0, away(errors.New("rspamd refuses the password: " + text))
	case status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout:
		return 0, away(errors.New(text))
	}
	return 0, fmt.Errorf("status %d: %s", status, text)
}
