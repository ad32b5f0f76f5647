package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"understudy/smtp/queue"
)

// listMessages streams the selected messages as one JSON array.
func (s *Server) listMessages(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Queue == nil {
		return notConfigured("a queue")
	}
	var sel Selection
	if err := decode(w, r, &sel); err != nil {
		return err
	}
	if err := checkSelection(sel); err != nil {
		return err
	}
	list, err := s.deps.Queue.List(r.Context(), sel)
	if err != nil {
		return queueError(err, "")
	}
	return WriteList(newStream(w, "application/json"), list)
}

// WriteList writes list as a JSON array, one message a line. Without its closing
// bracket it was cut short.
func WriteList(w io.Writer, list []queue.Summary) error {
	buf := make([]byte, 0, streamBuffer+4<<10)
	buf = append(buf, '[')
	for i := range list {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(buf, '\n')
		buf = appendSummary(buf, &list[i])
		if len(buf) >= streamBuffer {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	buf = append(buf, "\n]\n"...)
	if _, err := w.Write(buf); err != nil {
		return err
	}
	if s, ok := w.(*stream); ok {
		return s.flush()
	}
	return nil
}

func (s *Server) showMessage(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Queue == nil {
		return notConfigured("a queue")
	}
	id := r.PathValue("id")
	if err := checkID(id); err != nil {
		return err
	}
	d, err := s.deps.Queue.Show(r.Context(), id)
	if err != nil {
		return queueError(err, id)
	}
	return writeJSON(w, d)
}

// mayRead guards everything that shows the content of messages.
func (s *Server) mayRead() error {
	if s.deps.AllowBody == nil || !s.deps.AllowBody() {
		return errBodyAccess()
	}
	return nil
}

func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (err error) {
	if s.deps.Queue == nil {
		return notConfigured("a queue")
	}
	id := r.PathValue("id")
	if err := checkID(id); err != nil {
		return err
	}
	// Refused access is worth a line too.
	defer func() { s.audit(r.Context(), "read_body", []string{id}, 1, err) }()
	if err := s.mayRead(); err != nil {
		return err
	}
	body, err := s.deps.Queue.Body(r.Context(), id)
	if err != nil {
		return queueError(err, id)
	}
	defer func() { _ = body.Close() }()
	out := newStream(w, "message/rfc822")
	if _, err := io.Copy(out, body); err != nil {
		return abort(w, err)
	}
	return out.flush()
}

// applyAction does what the request says to the selected messages.
func (s *Server) applyAction(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Queue == nil {
		return notConfigured("a queue")
	}
	var req ApplyRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := checkApply(req); err != nil {
		return err
	}
	if req.Action == queue.Flush && !req.DryRun && !req.KeepPaused {
		if _, err := s.resumeHops(r.Context()); err != nil {
			return err
		}
	}
	change, err := s.deps.Queue.Apply(r.Context(), req.Action, req.Selection, req.ApplyOptions)
	if !req.DryRun {
		if req.Action == queue.Delete || req.Action == queue.Bounce {
			s.noteRemoved(change.IDs)
		}
		s.audit(r.Context(), string(req.Action), change.IDs, change.Count, err, auditSelection(req.Selection, req.All),
			slog.String("to", req.To), slog.String("reason", req.Reason))
	}
	if err != nil {
		e := *asError(queueError(err, ""))
		e.Change = &change
		return &e
	}
	return writeJSON(w, change)
}

func auditSelection(sel Selection, all bool) slog.Attr {
	return slog.String("selection", describeSelection(sel, all))
}

// checkApply refuses what cannot be meant.
func checkApply(req ApplyRequest) error {
	switch req.Action {
	case queue.Flush: // trying at once harms nothing
		req.All = true
	case queue.Hold, queue.Release, queue.Delete, queue.Bounce, queue.Requeue:
	case "":
		return badRequest("action is missing")
	default:
		return badRequest("unknown action %q", req.Action)
	}
	if req.KeepPaused && req.Action != queue.Flush {
		return badRequest("keep_paused is possible with flush only")
	}
	if req.To != "" && req.Action != queue.Requeue {
		return badRequest("to is possible with requeue only")
	}
	if len(req.To) > maxPatternBytes || strings.ContainsFunc(req.To, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return badRequest("to: %.80q is not a next hop", req.To)
	}
	if err := checkReason(req.Reason); err != nil {
		return err
	}
	return needSelection(req.Selection, req.All)
}

func (s *Server) getStats(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Queue == nil {
		return notConfigured("a queue")
	}
	st, err := s.deps.Queue.Stats(r.Context())
	if err != nil {
		return queueError(err, "")
	}
	return writeJSON(w, st)
}

// watchEvents sends one line an event until the caller leaves.
func (s *Server) watchEvents(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Queue == nil {
		return notConfigured("a queue")
	}
	events, cancel := s.deps.Queue.Subscribe(r.Context())
	defer cancel()
	out := newStream(w, "application/x-ndjson")
	if err := out.flush(); err != nil {
		return err
	}
	for {
		select {
		case <-r.Context().Done():
			out.fail(func(e *Error) any { return EventLine{Error: e} }, context.Cause(r.Context()))
			return nil
		case ev, ok := <-events:
			if !ok {
				out.fail(func(e *Error) any { return EventLine{Error: e} }, errors.New("the daemon stops"))
				return nil
			}
			if err := out.line(EventLine{Event: &ev}); err != nil {
				return err
			}
			if len(events) > 0 {
				continue // more is there already: send them together
			}
			if err := out.flush(); err != nil {
				return err
			}
		}
	}
}

// exportMessages streams a tar; the caller recognises a broken one by its
// missing trailer.
func (s *Server) exportMessages(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Archive == nil {
		return notConfigured("export")
	}
	var req ExportRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := needSelection(req.Selection, req.All); err != nil {
		return err
	}
	n := 0
	var err error
	defer func() { s.audit(r.Context(), "export", nil, n, err, auditSelection(req.Selection, req.All)) }()
	if err = s.mayRead(); err != nil {
		return err
	}
	out := newStream(w, "application/x-tar")
	if n, err = s.deps.Archive.Export(r.Context(), out, req.Selection); err != nil {
		err = queueError(err, "")
		return abort(w, err)
	}
	return out.flush()
}

// importMessages queues the messages of a tar stream.
func (s *Server) importMessages(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Archive == nil {
		return notConfigured("import")
	}
	change, err := s.deps.Archive.Import(r.Context(), deadlineReader{r.Body, http.NewResponseController(w)})
	s.audit(r.Context(), "import", change.IDs, change.Count, err)
	if err != nil {
		e := *asError(queueError(err, ""))
		if e.Code == CodeInternal {
			// What the stream holds is the caller's: not our fault.
			e.Status, e.Code = http.StatusUnprocessableEntity, CodeBadRequest
		}
		e.Change = &change
		return &e
	}
	return writeJSON(w, change)
}

func (s *Server) listRules(w http.ResponseWriter, _ *http.Request) error {
	if s.deps.Rules == nil {
		return notConfigured("hold rules")
	}
	rules := s.deps.Rules.HoldRules()
	if rules == nil {
		rules = []queue.HoldRule{}
	}
	return writeJSON(w, rules)
}

func (s *Server) addRule(w http.ResponseWriter, r *http.Request) error {
	return s.changeRules(w, r, "add_rule", func(rules []queue.HoldRule, rule queue.HoldRule) ([]queue.HoldRule, error) {
		if i := findRule(rules, rule); i >= 0 {
			rules[i].Reason = rule.Reason
			return rules, nil
		}
		return append(rules, rule), nil
	})
}

func (s *Server) removeRule(w http.ResponseWriter, r *http.Request) error {
	return s.changeRules(w, r, "remove_rule", func(rules []queue.HoldRule, rule queue.HoldRule) ([]queue.HoldRule, error) {
		i := findRule(rules, rule)
		if i < 0 {
			return nil, NotFound("hold rule for " + describeRule(rule))
		}
		return slices.Delete(rules, i, i+1), nil
	})
}

// changeRules reads, changes and writes the rules as one step, and answers with
// the new list.
func (s *Server) changeRules(w http.ResponseWriter, r *http.Request, action string,
	change func([]queue.HoldRule, queue.HoldRule) ([]queue.HoldRule, error),
) error {
	if s.deps.Rules == nil {
		return notConfigured("hold rules")
	}
	var rule queue.HoldRule
	if err := decode(w, r, &rule); err != nil {
		return err
	}
	if rule.Sender == "" && rule.Domain == "" {
		return badRequest("a hold rule needs a sender or a domain")
	}
	if len(rule.Sender)+len(rule.Domain) > maxPatternBytes {
		return badRequest("hold rule over %d bytes", maxPatternBytes)
	}
	if err := checkReason(rule.Reason); err != nil {
		return err
	}
	s.rules.Lock()
	defer s.rules.Unlock()
	rules, err := change(slices.Clone(s.deps.Rules.HoldRules()), rule)
	if err != nil {
		return err
	}
	err = s.deps.Rules.SetHoldRules(r.Context(), rules)
	s.audit(r.Context(), action, nil, 1, err, slog.String("selection", describeRule(rule)), slog.String("reason", rule.Reason))
	if err != nil {
		return queueError(err, "")
	}
	return s.listRules(w, r)
}

// findRule returns the index of the rule for the same mail, or -1.
func findRule(rules []queue.HoldRule, rule queue.HoldRule) int {
	return slices.IndexFunc(rules, func(have queue.HoldRule) bool {
		return strings.EqualFold(have.Sender, rule.Sender) && strings.EqualFold(have.Domain, rule.Domain)
	})
}

func describeRule(rule queue.HoldRule) string {
	switch {
	case rule.Domain == "":
		return "sender " + rule.Sender
	case rule.Sender == "":
		return "domain " + rule.Domain
	}
	return "sender " + rule.Sender + " and domain " + rule.Domain
}
