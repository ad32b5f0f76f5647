package admin

import (
	"context"
	"log/slog"
	"net/http"

	"understudy/dnsfailover"
)

// Failover is who is active, and what operators do about it. Methods may be
// called concurrently.
type Failover interface {
	// FailoverStatus tells what is known, without asking anybody; it may be retried.
	FailoverStatus(ctx context.Context) (dnsfailover.Status, error)
	// FailoverPlan reads the records and says what making a site's values public
	// changes; "" is the active site's. May be retried.
	FailoverPlan(ctx context.Context, active dnsfailover.Site) (dnsfailover.PlanReport, error)
	// FailoverHistory returns the last lines of both sites; Missing names what could
	// not be had. May be retried.
	FailoverHistory(ctx context.Context) (FailoverHistory, error)
	// FailoverOrder gives a command. A refusal is in the result, with its reasons.
	FailoverOrder(ctx context.Context, q dnsfailover.OrderQuestion) (dnsfailover.OrderResult, error)
	// FailoverDrill switches there and back. After a Conflict, which names the
	// reason, the role is where the last step of the result left it.
	FailoverDrill(ctx context.Context) (FailoverDrill, error)
	// FailoverRecords carries out the plan at the active site, or adopts foreign
	// values. A Conflict names what speaks against it.
	FailoverRecords(ctx context.Context, adopt bool) (FailoverRecords, error)
}

// FailoverHistory is the answer to a question for the history.
type FailoverHistory struct {
	Register string              `json:"register,omitempty"`
	Entries  []dnsfailover.Entry `json:"entries"`
	Missing  string              `json:"missing,omitempty"`
}

// FailoverDrill is what a drill took.
type FailoverDrill struct {
	Steps []dnsfailover.DrillStep `json:"steps"`
	// Error says where it ended early.
	Error string `json:"error,omitempty"`
}

// FailoverRecords is what was done about records.
type FailoverRecords struct {
	Changed []dnsfailover.RRChange `json:"changed,omitempty"`
	Adopted []dnsfailover.RRSet    `json:"adopted,omitempty"`
}

// FailoverPlanRequest asks for a plan.
type FailoverPlanRequest struct {
	Active dnsfailover.Site `json:"active,omitempty"`
}

// FailoverRecordsRequest asks for a change of records.
type FailoverRecordsRequest struct {
	Adopt bool `json:"adopt,omitempty"`
}

func (s *Server) failoverRoutes() map[string]map[string]handler {
	return map[string]map[string]handler{
		"/v1/failover/status":  {http.MethodGet: s.failoverStatus},
		"/v1/failover/plan":    {http.MethodPost: s.failoverPlan},
		"/v1/failover/history": {http.MethodGet: s.failoverHistory},
		"/v1/failover/order":   {http.MethodPost: s.failoverOrder},
		"/v1/failover/drill":   {http.MethodPost: s.failoverDrill},
		"/v1/failover/records": {http.MethodPost: s.failoverRecords},
	}
}

// failover is the part, or the answer that there is none.
func (s *Server) failover() (Failover, error) {
	if s.deps.Failover == nil {
		return nil, notConfigured("a failover section")
	}
	return s.deps.Failover, nil
}

func (s *Server) failoverStatus(w http.ResponseWriter, r *http.Request) error {
	f, err := s.failover()
	if err != nil {
		return err
	}
	st, err := f.FailoverStatus(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, st)
}

func (s *Server) failoverPlan(w http.ResponseWriter, r *http.Request) error {
	f, err := s.failover()
	if err != nil {
		return err
	}
	var req FailoverPlanRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	plan, err := f.FailoverPlan(r.Context(), req.Active)
	if err != nil {
		return err
	}
	return writeJSON(w, plan)
}

func (s *Server) failoverHistory(w http.ResponseWriter, r *http.Request) error {
	f, err := s.failover()
	if err != nil {
		return err
	}
	h, err := f.FailoverHistory(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, h)
}

func (s *Server) failoverOrder(w http.ResponseWriter, r *http.Request) error {
	f, err := s.failover()
	if err != nil {
		return err
	}
	var req dnsfailover.OrderQuestion
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := checkWord("command", string(req.Command)); err != nil {
		return err
	}
	res, err := f.FailoverOrder(r.Context(), req)
	if err == nil {
		err = res.Err()
	}
	s.audit(r.Context(), "failover_order", nil, 1, err, slog.String("selection", string(req.Command)+" "+string(req.To)))
	if err != nil && res.Err() == nil {
		return err
	}
	return writeJSON(w, res)
}

func (s *Server) failoverDrill(w http.ResponseWriter, r *http.Request) error {
	f, err := s.failover()
	if err != nil {
		return err
	}
	d, err := f.FailoverDrill(r.Context())
	s.audit(r.Context(), "failover_drill", nil, 1, err)
	if err != nil {
		return err
	}
	return writeJSON(w, d)
}

func (s *Server) failoverRecords(w http.ResponseWriter, r *http.Request) error {
	f, err := s.failover()
	if err != nil {
		return err
	}
	var req FailoverRecordsRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	res, err := f.FailoverRecords(r.Context(), req.Adopt)
	action := "failover_apply"
	if req.Adopt {
		action = "failover_adopt"
	}
	s.audit(r.Context(), action, nil, len(res.Changed)+len(res.Adopted), err)
	if err != nil {
		return err
	}
	return writeJSON(w, res)
}

// FailoverStatus tells who is active.
func (c *Client) FailoverStatus(ctx context.Context) (dnsfailover.Status, error) {
	var out dnsfailover.Status
	return out, c.call(ctx, http.MethodGet, "/v1/failover/status", nil, &out)
}

// FailoverPlan asks what making a site's values public changes.
func (c *Client) FailoverPlan(ctx context.Context, active string) (dnsfailover.PlanReport, error) {
	var out dnsfailover.PlanReport
	return out, c.call(ctx, http.MethodPost, "/v1/failover/plan", FailoverPlanRequest{Active: dnsfailover.Site(active)}, &out)
}

// FailoverHistory returns the last lines of both sites.
func (c *Client) FailoverHistory(ctx context.Context) (FailoverHistory, error) {
	var out FailoverHistory
	return out, c.call(ctx, http.MethodGet, "/v1/failover/history", nil, &out)
}

// FailoverOrder gives a command.
func (c *Client) FailoverOrder(ctx context.Context, q dnsfailover.OrderQuestion) (dnsfailover.OrderResult, error) {
	var out dnsfailover.OrderResult
	return out, c.call(ctx, http.MethodPost, "/v1/failover/order", q, &out)
}

// FailoverDrill switches there and back.
func (c *Client) FailoverDrill(ctx context.Context) (FailoverDrill, error) {
	var out FailoverDrill
	return out, c.call(ctx, http.MethodPost, "/v1/failover/drill", nil, &out)
}

// FailoverRecords carries out the plan, or adopts foreign values.
func (c *Client) FailoverRecords(ctx context.Context, adopt bool) (FailoverRecords, error) {
	var out FailoverRecords
	return out, c.call(ctx, http.MethodPost, "/v1/failover/records", FailoverRecordsRequest{Adopt: adopt}, &out)
}
