package admin

import (
	"errors"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"understudy/smtp/queue"
)

// handler answers one request. An error it returns before it wrote anything
// becomes the answer; later errors are its own to tell within its stream.
type handler func(w http.ResponseWriter, r *http.Request) error

// routes is the whole API: path pattern, then method.
func (s *Server) routes() map[string]map[string]handler {
	all := map[string]map[string]handler{
		"/v1/status":                  {http.MethodGet: s.getStatus},
		"/v1/queue/list":              {http.MethodPost: s.listMessages},
		"/v1/queue/message/{id}":      {http.MethodGet: s.showMessage},
		"/v1/queue/message/{id}/body": {http.MethodGet: s.readBody},
		"/v1/queue/apply":             {http.MethodPost: s.applyAction},
		"/v1/queue/flush":             {http.MethodPost: s.flushMessages},
		"/v1/queue/stats":             {http.MethodGet: s.getStats},
		"/v1/queue/events":            {http.MethodGet: s.watchEvents},
		"/v1/queue/export":            {http.MethodPost: s.exportMessages},
		"/v1/queue/import":            {http.MethodPost: s.importMessages},
		"/v1/queue/search":            {http.MethodPost: s.searchMessages},
		"/v1/queue/rules": {
			http.MethodGet: s.listRules, http.MethodPost: s.addRule, http.MethodDelete: s.removeRule,
		},
		"/v1/hops":               {http.MethodGet: s.listHops},
		"/v1/hops/resume":        {http.MethodPost: s.resumeHop},
		"/v1/recipients/check":   {http.MethodPost: s.checkRecipient},
		"/v1/recipients/approve": {http.MethodPost: s.approveSource},
		"/v1/spam/status":        {http.MethodGet: s.spamStatus},
		"/v1/spam/learn":         {http.MethodPost: s.learnSpam},
		"/v1/spam/check":         {http.MethodPost: s.checkSpam},
		"/v1/spam/merge":         {http.MethodPost: s.mergeSpam},
		"/v1/mailsync/status":    {http.MethodGet: s.mailsyncStatus},
		"/v1/mailsync/account":   {http.MethodGet: s.mailsyncAccount},
		"/v1/mailsync/settle":    {http.MethodPost: s.settleHolds},
		"/v1/bans":               {http.MethodGet: s.listBans, http.MethodPost: s.changeBans},
	}
	maps.Copy(all, s.failoverRoutes())
	return all
}

// operatorHandler is what listens on the unix socket.
func (s *Server) operatorHandler() http.Handler {
	mux := http.NewServeMux()
	for pattern, methods := range s.routes() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			s.serve(w, r, pattern, methods)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.serve(w, r, "other", nil)
	})
	return mux
}

// serve negotiates the version, chooses the method, and turns errors and panics
// into answers.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, route string, methods map[string]handler) {
	rec := &recorder{ResponseWriter: w}
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("admin request panicked", "route", route, "value", v, "stack", string(debug.Stack()))
			if rec.status == 0 {
				writeError(rec, &Error{Status: http.StatusInternalServerError, Code: CodeInternal, Text: "internal error; the daemon's log has more"})
			}
		}
		s.requests.WithLabelValues(route, strconv.Itoa(max(rec.status, http.StatusOK))).Inc()
	}()
	version, err := negotiate(r.Header.Get(VersionHeader))
	w.Header().Set(VersionHeader, strconv.Itoa(max(version, APIVersion)))
	if err == nil {
		err = dispatch(rec, r, methods)
	}
	if err != nil {
		e := asError(err)
		if e.Code == CodeInternal {
			s.log.Warn("admin request failed", "route", route, "err", err)
		}
		if rec.status == 0 {
			writeError(rec, e)
		}
	}
}

// dispatch calls the handler of the request's method.
func dispatch(w http.ResponseWriter, r *http.Request, methods map[string]handler) error {
	if methods == nil {
		return &Error{Status: http.StatusNotFound, Code: CodeNotFound, Text: "no such path " + strconv.Quote(r.URL.Path)}
	}
	h, ok := methods[r.Method]
	if !ok {
		var allowed []string
		for m := range methods {
			allowed = append(allowed, m)
		}
		slices.Sort(allowed)
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return &Error{
			Status: http.StatusMethodNotAllowed, Code: CodeMethod,
			Text: r.Method + " is not possible here, only " + strings.Join(allowed, ", "),
		}
	}
	return h(w, r)
}

// negotiate chooses the highest version both sides speak.
func negotiate(header string) (int, error) {
	if header == "" {
		return APIVersion, nil
	}
	best := 0
	for f := range strings.SplitSeq(header, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(f))
		if err == nil && n >= MinAPIVersion && n <= APIVersion {
			best = max(best, n)
		}
	}
	if best == 0 {
		return 0, &Error{
			Status: http.StatusBadRequest, Code: CodeVersion,
			Text: "this daemon speaks version " + strconv.Itoa(MinAPIVersion) + " to " + strconv.Itoa(APIVersion) +
				" of the operators' API, the caller " + strconv.Quote(header) + ": use the same release for both",
		}
	}
	return best, nil
}

// recorder remembers whether and how a request was answered.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// notConfigured is the answer of a part this daemon runs without.
func notConfigured(part string) error {
	return &Error{Status: http.StatusNotImplemented, Code: CodeNotConfigured, Text: "this daemon runs without " + part}
}

// queueError gives the queue's sentinels their codes; id may be empty.
func queueError(err error, id string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, queue.ErrNotFound):
		if id != "" {
			return NotFound("message " + strconv.Quote(id) + " in the queue")
		}
		return &Error{Status: http.StatusNotFound, Code: CodeNotFound, Text: err.Error()}
	case errors.Is(err, queue.ErrBodyAccess):
		return errBodyAccess()
	case errors.Is(err, queue.ErrClosed):
		return &Error{Status: http.StatusServiceUnavailable, Code: CodeCanceled, Text: "the daemon stops"}
	}
	return err
}

func errBodyAccess() error {
	return &Error{
		Status: http.StatusForbidden, Code: CodeBodyAccess,
		Text: "reading messages is off: set queue.allow_body_access in the configuration (each access is logged)",
	}
}
