package admin

import (
	"log/slog"
	"net/http"
	"strings"
)

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Status == nil {
		return notConfigured("a status report")
	}
	report, err := s.deps.Status.Status(r.Context())
	if err != nil {
		return err
	}
	if report.Alarms == nil {
		report.Alarms = []Alarm{}
	}
	return writeJSON(w, report)
}

func (s *Server) listHops(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Hops == nil {
		return notConfigured("a relay")
	}
	hops, err := s.deps.Hops.Hops(r.Context())
	if err != nil {
		return err
	}
	if hops == nil {
		hops = []Hop{}
	}
	return writeJSON(w, hops)
}

func (s *Server) resumeHop(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Hops == nil {
		return notConfigured("a relay")
	}
	var req HopRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := checkWord("name", req.Name); err != nil {
		return err
	}
	err := s.deps.Hops.Resume(r.Context(), req.Name)
	s.audit(r.Context(), "resume_hop", nil, 1, err, slog.String("selection", req.Name))
	if err != nil {
		return err
	}
	return s.listHops(w, r)
}

func (s *Server) checkRecipient(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Recipients == nil {
		return notConfigured("recipient sources")
	}
	var req RecipientRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := checkWord("address", req.Address); err != nil {
		return err
	}
	answer, err := s.deps.Recipients.Explain(r.Context(), req.Address)
	if err != nil {
		return err
	}
	return writeJSON(w, answer)
}

func (s *Server) approveSource(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Recipients == nil {
		return notConfigured("recipient sources")
	}
	var req SourceRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := checkWord("source", req.Source); err != nil {
		return err
	}
	err := s.deps.Recipients.Approve(r.Context(), req.Source)
	s.audit(r.Context(), "approve_recipients", nil, 1, err, slog.String("selection", req.Source))
	if err != nil {
		return err
	}
	return writeJSON(w, req)
}

// checkWord accepts a short name without control characters.
func checkWord(field, text string) error {
	switch {
	case text == "":
		return badRequest("%s is missing", field)
	case len(text) > maxPatternBytes:
		return badRequest("%s of %d bytes, at most %d", field, len(text), maxPatternBytes)
	case strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return badRequest("%s: %.80q holds control characters", field, text)
	}
	return nil
}
