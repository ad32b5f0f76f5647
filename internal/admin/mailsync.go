package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"understudy/imapsync"
)

// Mailsync is what operators see and decide of the accounts that this daemon keeps
// synchronised. Methods may be called concurrently; all may be retried.
type Mailsync interface {
	// MailsyncStatus is all accounts in a few numbers.
	MailsyncStatus(ctx context.Context) (MailsyncStatus, error)
	// MailsyncAccount reads one account's base, between two passes; ErrNotFound's
	// code for an account that is not kept here, a Conflict while a pass goes on.
	MailsyncAccount(ctx context.Context, account string) (imapsync.Status, error)
	// SettleHolds approves or rejects held deletions of an account; an empty id
	// means all. The account is due at once.
	SettleHolds(ctx context.Context, account, id string, approve bool) error
}

// MailsyncStatus is the mailbox synchronisation at a glance.
type MailsyncStatus struct {
	// Running: this daemon synchronises; else the other site's does, or cron.
	Running  bool           `json:"running"`
	Accounts int            `json:"accounts"`
	Clean    int            `json:"clean"` // their last pass left both sides equal
	Holds    int            `json:"holds"`
	Oldest   time.Duration  `json:"oldest_ns"` // longest time without a clean pass
	Stale    []MailsyncLate `json:"stale,omitempty"`
}

// MailsyncLate is an account that has not been equal for too long.
type MailsyncLate struct {
	Account string        `json:"account"`
	Age     time.Duration `json:"age_ns"`
	Reason  string        `json:"reason"`
}

// settleRequest is the body of /v1/mailsync/settle.
type settleRequest struct {
	Account string `json:"account"`
	ID      string `json:"id"` // empty: all of the account
	Approve bool   `json:"approve"`
}

// busyWait is how long an operator waits for the pass of an account to end.
const busyWait = 10 * time.Second

func (s *Server) mailsyncStatus(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Mailsync == nil {
		return notConfigured("mailbox synchronisation")
	}
	st, err := s.deps.Mailsync.MailsyncStatus(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, st)
}

func (s *Server) mailsyncAccount(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Mailsync == nil {
		return notConfigured("mailbox synchronisation")
	}
	ctx, cancel := context.WithTimeout(r.Context(), busyWait)
	defer cancel()
	st, err := s.deps.Mailsync.MailsyncAccount(ctx, r.URL.Query().Get("account"))
	if err != nil {
		return mailsyncError(err)
	}
	return writeJSON(w, st)
}

func (s *Server) settleHolds(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Mailsync == nil {
		return notConfigured("mailbox synchronisation")
	}
	var req settleRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if req.Account == "" {
		return badRequest("account: is missing")
	}
	ctx, cancel := context.WithTimeout(r.Context(), busyWait)
	defer cancel()
	err := s.deps.Mailsync.SettleHolds(ctx, req.Account, req.ID, req.Approve)
	action := "mailsync reject"
	if req.Approve {
		action = "mailsync approve"
	}
	s.audit(r.Context(), action, nil, 1, err, slog.String("account", req.Account), slog.String("hold", req.ID))
	if err != nil {
		return mailsyncError(err)
	}
	return writeJSON(w, struct{}{})
}

// mailsyncError gives the sentinels of imapsync their codes.
func mailsyncError(err error) error {
	switch {
	case errors.Is(err, imapsync.ErrNoHold):
		return &Error{Status: http.StatusNotFound, Code: CodeNotFound, Text: err.Error()}
	case errors.Is(err, imapsync.ErrBusy):
		return Conflict(err.Error() + "; try again when its pass has ended")
	}
	return err
}

// MailsyncStatus returns the state of the mailbox synchronisation.
func (c *Client) MailsyncStatus(ctx context.Context) (MailsyncStatus, error) {
	var out MailsyncStatus
	return out, c.call(ctx, http.MethodGet, "/v1/mailsync/status", nil, &out)
}

// MailsyncAccount returns the state of one account.
func (c *Client) MailsyncAccount(ctx context.Context, account string) (imapsync.Status, error) {
	var out imapsync.Status
	return out, c.call(ctx, http.MethodGet, "/v1/mailsync/account?account="+url.QueryEscape(account), nil, &out)
}

// SettleHolds approves or rejects held deletions; an empty id means all of the account.
func (c *Client) SettleHolds(ctx context.Context, account, id string, approve bool) error {
	return c.call(ctx, http.MethodPost, "/v1/mailsync/settle", settleRequest{Account: account, ID: id, Approve: approve}, nil)
}
