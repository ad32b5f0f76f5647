package hosted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"understudy/dnsfailover"
)

// fake is a provider in memory that replaces whole sets.
type fake struct {
	mu      sync.Mutex
	records []libdns.RR
	writes  []libdns.RR
	fail    error  // of the next write
	late    bool   // that write takes place all the same
	before  func() // runs at every read
}

// GetRecords implements libdns.RecordGetter.
func (f *fake) GetRecords(context.Context, string) ([]libdns.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before != nil {
		f.before()
	}
	out := make([]libdns.Record, len(f.records))
	for i, r := range f.records {
		parsed, err := r.Parse()
		if err != nil {
			return nil, err
		}
		out[i] = parsed
	}
	return out, nil
}

// SetRecords implements libdns.RecordSetter.
func (f *fake) SetRecords(_ context.Context, _ string, records []libdns.Record) ([]libdns.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.fail
	f.fail = nil
	if err != nil && !f.late {
		return nil, err
	}
	for _, r := range records {
		rr := r.RR()
		f.records = slices.DeleteFunc(f.records, func(o libdns.RR) bool { return o.Name == rr.Name && o.Type == rr.Type })
	}
	for _, r := range records {
		f.records = append(f.records, r.RR())
		f.writes = append(f.writes, r.RR())
	}
	return records, err
}

func (f *fake) values(name, typ string) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.records {
		if r.Name == name && r.Type == typ {
			out = append(out, r.Data)
		}
	}
	return out
}

const (
	siteA = "192.0.2.1"
	siteB = "198.51.100.1"
)

func newFake() *fake {
	return &fake{records: []libdns.RR{
		{Name: "webmail", Type: "A", TTL: time.Minute, Data: siteA},
		{Name: "imap", Type: "A", TTL: time.Minute, Data: siteA},
		{Name: "@", Type: "MX", TTL: time.Minute, Data: "10 mx1.example.net."},
		{Name: "@", Type: "MX", TTL: time.Minute, Data: "20 mx2.example.net."},
	}}
}

func publisher(f *fake, name string) *Publisher {
	return open(Config{Provider: name, Zone: "example.net"}.withDefaults(), f)
}

func move(name, from, to string) dnsfailover.RRChange {
	return dnsfailover.RRChange{
		RRKey: dnsfailover.RRKey{Name: name + ".example.net.", Type: "A"}, TTL: time.Minute, Old: []string{from}, New: []string{to},
	}
}

func TestApply(t *testing.T) {
	f := newFake()
	p := publisher(f, Hetzner)
	both := func(from, to string) []dnsfailover.RRChange {
		return []dnsfailover.RRChange{move("webmail", from, to), move("imap", from, to)}
	}
	if err := p.Apply(t.Context(), 7, both(siteA, siteB)); err != nil {
		t.Fatal(err)
	}
	if got := append(f.values("webmail", "A"), f.values("imap", "A")...); !slices.Equal(got, []string{siteB, siteB}) {
		t.Errorf("published %q", got)
	}
	if got := f.values("_understudy", "TXT"); !slices.Equal(got, []string{"v=us1-epoch;epoch=7"}) {
		t.Errorf("note %q", got)
	}
	before := len(f.writes)
	if err := p.Apply(t.Context(), 7, both(siteA, siteB)); err != nil || len(f.writes) != before {
		t.Errorf("the same again: %v, %d writes", err, len(f.writes)-before)
	}
	if err := p.Apply(t.Context(), 6, both(siteB, siteA)); !errors.Is(err, dnsfailover.ErrConflict) || len(f.writes) != before {
		t.Errorf("an older epoch: %v, %d writes", err, len(f.writes)-before)
	}
	sets, err := p.Records(t.Context(), []dnsfailover.RRKey{{Name: "example.net.", Type: "MX"}, {Name: "gone.example.net.", Type: "A"}})
	if err != nil || !slices.Equal(sets[0].Values, []string{"10 mx1.example.net.", "20 mx2.example.net."}) || len(sets[1].Values) != 0 {
		t.Errorf("records %+v, %v", sets, err)
	}
}

func TestForeignRecordsAreLeftAlone(t *testing.T) {
	for name, edit := range map[string]func(f *fake){
		"another value":  func(f *fake) { f.records[1].Data = "203.0.113.9" },
		"one value more": func(f *fake) { f.records = append(f.records, libdns.RR{Name: "imap", Type: "A", Data: "203.0.113.9"}) },
		"deleted":        func(f *fake) { f.records = slices.Delete(f.records, 1, 2) },
		"a CNAME":        func(f *fake) { f.records[1] = libdns.RR{Name: "imap", Type: "CNAME", Data: "elsewhere.example.org."} },
	} {
		f := newFake()
		edit(f)
		err := publisher(f, Hetzner).Apply(t.Context(), 7, []dnsfailover.RRChange{move("webmail", siteA, siteB), move("imap", siteA, siteB)})
		var foreign *dnsfailover.ForeignError
		if !errors.As(err, &foreign) || foreign.Found[0].Name != "imap.example.net." || len(f.writes) != 0 {
			t.Errorf("%s: %v, %d writes", name, err, len(f.writes))
		}
	}
}

// TestEditInBetween: a record that is changed by hand after the first look is not
// overwritten.
func TestEditInBetween(t *testing.T) {
	f := newFake()
	reads := 0
	f.before = func() {
		if reads++; reads == 4 { // all, webmail before, webmail after; then imap
			f.records = slices.DeleteFunc(f.records, func(r libdns.RR) bool { return r.Name == "imap" })
			f.records = append(f.records, libdns.RR{Name: "imap", Type: "A", Data: "203.0.113.9"})
		}
	}
	err := publisher(f, Hetzner).Apply(t.Context(), 7, []dnsfailover.RRChange{move("webmail", siteA, siteB), move("imap", siteA, siteB)})
	if !errors.Is(err, dnsfailover.ErrForeign) || !slices.Equal(f.values("imap", "A"), []string{"203.0.113.9"}) {
		t.Errorf("%v, imap %q", err, f.values("imap", "A"))
	}
}

func TestLostAnswer(t *testing.T) {
	f := newFake()
	p := publisher(f, Hetzner)
	change := []dnsfailover.RRChange{move("webmail", siteA, siteB)}
	for _, late := range []bool{false, true} {
		f.fail, f.late = errors.New("connection reset"), late
		if err := p.Apply(t.Context(), 7, change); !errors.Is(err, dnsfailover.ErrUnknownOutcome) {
			t.Errorf("%v, want ErrUnknownOutcome", err)
		}
	}
	if err := p.Apply(t.Context(), 7, change); err != nil || !slices.Equal(f.values("webmail", "A"), []string{siteB}) {
		t.Errorf("again: %v, %q", err, f.values("webmail", "A"))
	}
}

func TestWhatCannotBeDone(t *testing.T) {
	mx := dnsfailover.RRChange{
		RRKey: dnsfailover.RRKey{Name: "example.net.", Type: "MX"}, TTL: time.Minute,
		Old: []string{"10 mx1.example.net.", "20 mx2.example.net."}, New: []string{"10 mx2.example.net.", "20 mx1.example.net."},
	}
	outside := move("x", siteA, siteB)
	outside.Name = "x.example.org."
	empty := move("webmail", siteA, siteB)
	empty.New = nil
	for name, c := range map[string]dnsfailover.RRChange{"several values": mx, "outside": outside, "empty": empty} {
		f := newFake()
		if err := publisher(f, Cloudflare).Apply(t.Context(), 7, []dnsfailover.RRChange{c}); !errors.Is(err, dnsfailover.ErrRefused) || len(f.writes) != 0 {
			t.Errorf("%s: %v, %d writes", name, err, len(f.writes))
		}
	}
	f := newFake()
	if err := publisher(f, DeSEC).Apply(t.Context(), 7, []dnsfailover.RRChange{mx}); err != nil || !slices.Equal(f.values("@", "MX"), mx.New) {
		t.Errorf("deSEC replaces sets: %v, %q", err, f.values("@", "MX"))
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	for _, tc := range []struct {
		c    Config
		keys []string
	}{
		{Config{Provider: "x", Timeout: time.Hour}, []string{"provider:", "zone:", "token_file:", "timeout:"}},
		{Config{Provider: Route53, Zone: "example.net", TokenFile: "x"}, []string{"access_key_id:"}},
	} {
		err := tc.c.Validate()
		for _, k := range tc.keys {
			if err == nil || !strings.Contains(err.Error(), k) {
				t.Errorf("no word of %s in: %v", k, err)
			}
		}
	}
}

// redirected sends what the provider's library sends to its API to a server of
// the test. The libraries know no other address than their own.
type redirected struct{ to *url.URL }

// RoundTrip implements http.RoundTripper.
func (r redirected) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = r.to.Scheme, r.to.Host
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
}

// api is a zone behind an HTTP API: records with an id, changed one by one.
type api struct {
	mu      sync.Mutex
	records []map[string]any
	seen    []string
	full    bool // names are full ones
}

func (a *api) list() []map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.records)
}

func (a *api) store(method, id string, body io.Reader) (map[string]any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var in map[string]any
	if err := json.NewDecoder(body).Decode(&in); err != nil {
		return nil, err
	}
	a.seen = append(a.seen, method)
	if name, ok := in["name"].(string); ok && a.full && !strings.HasSuffix(name, "example.net") {
		in["name"] = name + ".example.net" // the API takes either, and answers with the full one
	}
	if method == http.MethodPost {
		in["id"] = fmt.Sprint("r", len(a.records))
		a.records = append(a.records, in)
		return in, nil
	}
	for i, r := range a.records {
		if r["id"] == id {
			maps.Copy(r, in)
			r["id"] = id
			a.records[i] = r
			return r, nil
		}
	}
	return nil, errors.New("no such record")
}

func (a *api) value(t *testing.T, name, typ, key string) string {
	t.Helper()
	var out []string
	for _, r := range a.list() {
		if r["name"] == name && r["type"] == typ {
			out = append(out, fmt.Sprint(r[key]))
		}
	}
	return strings.Join(out, " ")
}

func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

// TestProviders: the providers' own libraries, against APIs of the test that
// answer as documented. Not parallel: the libraries use the default client.
func TestProviders(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		handler func(a *api) http.Handler
		full    bool // names in the API are full ones
		value   string
	}{
		Hetzner:    {handler: hetznerAPI, value: "value"},
		Cloudflare: {handler: cloudflareAPI, full: true, value: "content"},
	} {
		t.Run(name, func(t *testing.T) {
			webmail := "webmail"
			if tc.full {
				webmail = "webmail.example.net"
			}
			a := &api{full: tc.full, records: []map[string]any{{"id": "r0", "zone_id": "z1", "type": "A", "name": webmail, tc.value: siteA, "ttl": 60}}}
			srv := httptest.NewServer(tc.handler(a))
			defer srv.Close()
			to, err := url.Parse(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			kept := http.DefaultTransport
			http.DefaultTransport = redirected{to: to}
			defer func() { http.DefaultTransport = kept }()

			p, err := New(Config{Provider: name, Zone: "example.net", TokenFile: token, Timeout: 10 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Apply(t.Context(), 7, []dnsfailover.RRChange{move("webmail", siteA, siteB)}); err != nil {
				t.Fatal(err)
			}
			if got := a.value(t, webmail, "A", tc.value); got != siteB {
				t.Errorf("webmail A is %q", got)
			}
			if slices.Contains(a.seen, http.MethodDelete) {
				t.Errorf("something was deleted: %q", a.seen)
			}
			if err := p.Apply(t.Context(), 6, []dnsfailover.RRChange{move("webmail", siteB, siteA)}); !errors.Is(err, dnsfailover.ErrConflict) {
				t.Errorf("an older epoch: %v", err)
			}
			if err := p.Apply(t.Context(), 8, []dnsfailover.RRChange{move("webmail", "203.0.113.1", siteA)}); !errors.Is(err, dnsfailover.ErrForeign) {
				t.Errorf("a foreign value: %v", err)
			}
			srv.Close()
			if err := p.Apply(t.Context(), 8, []dnsfailover.RRChange{move("webmail", siteB, siteA)}); !errors.Is(err, dnsfailover.ErrUnreachable) {
				t.Errorf("without API: %v", err)
			}
		})
	}
}

func hetznerAPI(a *api) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/zones", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"zones": []any{map[string]any{"id": "z1", "name": "example.net"}}})
	})
	mux.HandleFunc("GET /api/v1/records", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]any{"records": a.list()}) })
	change := func(w http.ResponseWriter, r *http.Request) {
		rec, err := a.store(r.Method, r.PathValue("id"), r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		answer(w, map[string]any{"record": rec})
	}
	mux.HandleFunc("POST /api/v1/records", change)
	mux.HandleFunc("PUT /api/v1/records/{id}", change)
	return mux
}

func cloudflareAPI(a *api) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /client/v4/zones", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"success": true, "result": []any{map[string]any{"id": "z1", "name": "example.net"}}})
	})
	mux.HandleFunc("GET /client/v4/zones/z1/dns_records", func(w http.ResponseWriter, r *http.Request) {
		var out []map[string]any
		for _, rec := range a.list() {
			q := r.URL.Query()
			if (q.Get("type") == "" || q.Get("type") == rec["type"]) && (q.Get("name") == "" || q.Get("name") == rec["name"]) {
				out = append(out, rec)
			}
		}
		answer(w, map[string]any{"success": true, "result": out})
	})
	change := func(w http.ResponseWriter, r *http.Request) {
		rec, err := a.store(r.Method, r.PathValue("id"), r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		answer(w, map[string]any{"success": true, "result": rec})
	}
	mux.HandleFunc("POST /client/v4/zones/z1/dns_records", change)
	mux.HandleFunc("PATCH /client/v4/zones/z1/dns_records/{id}", change)
	return mux
}
