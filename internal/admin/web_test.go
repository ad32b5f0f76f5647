package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestWeb(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	var sick atomic.Bool
	deps := full(fill(1))
	deps.Registerer, deps.Gatherer = reg, reg
	deps.Checks = []Check{
		{Name: "spool", Ready: func(context.Context) error { return nil }},
		{Name: "listener", Ready: func(context.Context) error {
			if sick.Load() {
				return errors.New("port 25 is taken")
			}
			return nil
		}},
	}
	r := start(t, deps, func(c *Config) { c.Listen = "127.0.0.1:0"; c.AllowedHosts = []string{"mx2.example.net"} })
	if status, _ := r.ask(t, "GET", "/v1/hops", ""); status != 200 {
		t.Fatal(status)
	}
	get := func(method, host, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.srv.WebAddr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(data)
	}
	for _, tt := range []struct {
		method, host, path string
		status             int
		want               string
	}{
		{"GET", "", "/healthz", 200, "ok"},
		{"GET", "", "/readyz", 200, "spool: ok\nlistener: ok"},
		{"GET", "", "/metrics", 200, `understudy_admin_requests_total{route="/v1/hops",status="200"} 1`},
		{"GET", "localhost:7026", "/healthz", 200, "ok"},
		{"GET", "[::1]:7026", "/healthz", 200, "ok"},
		{"GET", "MX2.example.net:7026", "/healthz", 200, "ok"},
		{"GET", "evil.example:7026", "/metrics", 421, "admin.allowed_hosts"},
		{"GET", "192.0.2.7", "/metrics", 421, ""},
		{"POST", "", "/readyz", 405, ""},
		// Nothing of the operators' API is here.
		{"GET", "", "/v1/status", 404, ""},
		{"POST", "", "/v1/queue/list", 404, ""},
	} {
		status, body := get(tt.method, tt.host, tt.path)
		if status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s%s: %d %.200s; want %d %q", tt.method, tt.host, tt.path, status, body, tt.status, tt.want)
		}
	}
	sick.Store(true)
	if status, body := get("GET", "", "/readyz"); status != 503 || !strings.Contains(body, "listener: port 25 is taken") {
		t.Errorf("sick: %d %s", status, body)
	}
	if status, _ := get("GET", "", "/healthz"); status != 200 {
		t.Errorf("sick, but alive: %d", status)
	}
}

func TestHostAllowed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		listen, host string
		want         bool
	}{
		{"127.0.0.1:7026", "127.0.0.1:7026", true},
		{"127.0.0.1:7026", "127.9.9.9", true},
		{"192.0.2.1:7026", "192.0.2.1:7026", true},
		{"192.0.2.1:7026", "192.0.2.2:7026", false},
		{"mon.example.net:7026", "MON.example.net:1", true},
		{":7026", "", false},
		{":7026", "evil.example", false},
		{"127.0.0.1:7026", "localhost.evil.example", false},
		{"127.0.0.1:7026", "127.0.0.1.evil.example", false},
	} {
		s := &Server{cfg: Config{Listen: tt.listen}}
		r := (&http.Request{Host: tt.host}).WithContext(t.Context())
		if got := s.hostAllowed(r); got != tt.want {
			t.Errorf("listen %s, host %q: %v", tt.listen, tt.host, got)
		}
	}
}
