package admin

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"understudy/internal/bans"
)

// Bans are the networks that may not connect to either site. Methods may be called
// concurrently; all may be retried.
type Bans interface {
	// Ban shuts a network out; 0 is until it is lifted. Nil promises that the ban is
	// in force here and on disk. A Conflict says what is wrong with it.
	Ban(ctx context.Context, network netip.Prefix, length time.Duration, reason string) error
	// Unban lifts a ban; a Conflict where there is none.
	Unban(ctx context.Context, network netip.Prefix) error
	// Bans lists what is in force.
	Bans(ctx context.Context) ([]bans.Entry, error)
}

// BanRequest asks for a ban, or with Lift for its end.
type BanRequest struct {
	Network netip.Prefix `json:"network"`
	// For is in nanoseconds; 0 is until it is lifted.
	For    time.Duration `json:"for,omitempty"`
	Reason string        `json:"reason,omitempty"`
	Lift   bool          `json:"lift,omitempty"`
}

// changeBans handles POST /v1/bans; it answers with what is in force then.
func (s *Server) changeBans(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Bans == nil {
		return notConfigured("a list of bans")
	}
	var req BanRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if !req.Network.IsValid() {
		return badRequest("network: is missing")
	}
	if req.For < 0 {
		return badRequest("for: %s is negative", req.For)
	}
	action, err := "ban", error(nil)
	if req.Lift {
		action = "unban"
		err = s.deps.Bans.Unban(r.Context(), req.Network)
	} else {
		err = s.deps.Bans.Ban(r.Context(), req.Network, req.For, req.Reason)
	}
	s.audit(r.Context(), action, nil, 1, err, slog.String("selection", req.Network.String()))
	if err != nil {
		return err
	}
	return s.listBans(w, r)
}

// listBans handles GET /v1/bans.
func (s *Server) listBans(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Bans == nil {
		return notConfigured("a list of bans")
	}
	list, err := s.deps.Bans.Bans(r.Context())
	if err != nil {
		return err
	}
	if list == nil {
		list = []bans.Entry{}
	}
	return writeJSON(w, list)
}

// Bans lists the networks that may not connect.
func (c *Client) Bans(ctx context.Context) ([]bans.Entry, error) {
	var out []bans.Entry
	return out, c.call(ctx, http.MethodGet, "/v1/bans", nil, &out)
}

// ChangeBan bans a network or lifts its ban, and returns what is in force then.
func (c *Client) ChangeBan(ctx context.Context, req BanRequest) ([]bans.Entry, error) {
	var out []bans.Entry
	return out, c.call(ctx, http.MethodPost, "/v1/bans", req, &out)
}
