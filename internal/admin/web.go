package admin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyTimeout bounds all checks of /readyz together.
const readyTimeout = 5 * time.Second

// webHandler is what listens on admin.listen. It only reads.
func (s *Server) webHandler() http.Handler {
	mux := http.NewServeMux()
	if s.deps.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(s.deps.Gatherer, promhttp.HandlerOpts{
			ErrorLog: promLog{s}, ErrorHandling: promhttp.ContinueOnError, Timeout: webTimeout / 2,
		}))
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, "ok") // the caller may have left
	})
	mux.HandleFunc("GET /readyz", s.ready)
	return s.checkHost(mux)
}

// ready answers 200 where every check holds, else 503, with a line for each.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	status := http.StatusOK
	var text strings.Builder
	for _, c := range s.deps.Checks {
		if err := c.Ready(ctx); err != nil {
			status = http.StatusServiceUnavailable
			fmt.Fprintf(&text, "%s: %v\n", c.Name, err)
			continue
		}
		fmt.Fprintf(&text, "%s: ok\n", c.Name)
	}
	if r.Context().Err() != nil {
		status = http.StatusServiceUnavailable
		fmt.Fprintln(&text, "daemon: stopping")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text.String())) // the caller may have left
}

// checkHost refuses requests for other names than ours, so that a web page
// elsewhere cannot have a browser read this listener under a name of its own (DNS
// rebinding).
func (s *Server) checkHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !s.hostAllowed(r) {
			http.Error(w, "this listener does not answer for that host name; see admin.allowed_hosts", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) hostAllowed(r *http.Request) bool {
	host := hostOnly(r.Host)
	if host == "" {
		return false
	}
	if loopbackHost(r.Host) || strings.EqualFold(host, hostOnly(s.cfg.Listen)) {
		return true
	}
	for _, h := range s.cfg.AllowedHosts {
		if strings.EqualFold(host, hostOnly(h)) {
			return true
		}
	}
	// Listening on every address: the one that was connected to is ours too.
	addr, err := netip.ParseAddr(host)
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if err != nil || !ok {
		return false
	}
	ap, err := netip.ParseAddrPort(local.String())
	return err == nil && ap.Addr().Unmap() == addr.Unmap()
}

// hostOnly is hostport without port and brackets.
func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

// loopbackHost says whether hostport names this machine only.
func loopbackHost(hostport string) bool {
	host := hostOnly(hostport)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// promLog hands the metrics library's complaints to our log.
type promLog struct{ s *Server }

// Println implements promhttp.Logger.
func (l promLog) Println(v ...any) {
	l.s.log.Warn("metrics could not be gathered", "err", strings.TrimSpace(fmt.Sprintln(v...)))
}
