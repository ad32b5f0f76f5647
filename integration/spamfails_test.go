package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
	"understudy/integration/servers"
	"understudy/internal/admin"
	"understudy/smtp"
	"understudy/smtp/queue"
)

const (
	// filterTimeout is spam.timeout of the sites whose engine fails.
	filterTimeout = time.Second
	// filterSlack is what an answer may take beside it on a busy machine.
	filterSlack = 3 * time.Second
	// filterAlarm is the alarm of an engine that gives no verdict.
	filterAlarm = "filter:rspamd"
	// gtube is the generic test for unsolicited bulk e-mail.
	gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
)

// TestFilterFails: a real Rspamd is stopped, or hangs, is slow, talks nonsense or
// answers 500. Whatever spam.on_failure says is done within spam.timeout, an alarm
// is raised and goes when Rspamd is back, and no message is lost.
func TestFilterFails(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Command(t, "rspamd")
	redis := servers.Redis(t)
	rspamd := newRspamd(t, "fails", redis.Addr, redis.Addr, startResolver(t))
	rspamd.set("greylist.conf", "enabled = false;")
	rspamd.start()
	front := startAwkward(t, rspamd.Normal)
	hop := lab.StartSink(t, lab.SinkConfig{Keep: true})
	hop.SetAnswer(func(string, string) string { return "421 4.3.2 not yet" }) // so that the queue can be looked at

	var sites []*failingSite
	for i, policy := range []string{"builtin", "tempfail", "accept"} {
		for _, direct := range []bool{true, false} {
			s := &failingSite{t: t, policy: policy, direct: direct, ledger: lab.NewLedger(), next: 100_000*i + 10_000}
			addr := front.addr
			if direct {
				addr, s.next = rspamd.Normal, s.next+50_000
			}
			s.start("smtp://"+hop.Addr, addr)
			sites = append(sites, s)
		}
	}
	every := func(direct bool, do func(*failingSite)) {
		var wg sync.WaitGroup
		for _, s := range sites {
			if s.direct == direct {
				wg.Go(func() { do(s) })
			}
		}
		wg.Wait()
	}
	for _, direct := range []bool{true, false} {
		every(direct, func(s *failingSite) { s.works("before") })
	}
	rspamd.stop()
	every(true, func(s *failingSite) { s.fails("stopped", 0) })
	rspamd.start()
	every(true, func(s *failingSite) { s.works("after: stopped") })
	for mode := hung; mode <= brokenInside; mode++ {
		front.mode.Store(int32(mode))
		every(false, func(s *failingSite) { s.fails(mode.String(), mode.least()) })
		front.mode.Store(int32(healthy))
		every(false, func(s *failingSite) { s.works("after: " + mode.String()) })
	}
	hop.SetAnswer(nil)
	arrived := func() map[int][]lab.Sum { return hop.Bodies() }
	for _, s := range sites {
		s.over(arrived)
	}
}

// failingSite is an understudy whose engine fails.
type failingSite struct {
	t      *testing.T
	policy string
	// direct says that it asks Rspamd itself, not the awkward front.
	direct bool
	u      *lab.Understudy
	admin  *admin.Client
	ledger *lab.Ledger
	next   int
	// deferred are the messages that were answered 4xx: their senders try again.
	deferred []lab.Message
}

func (s *failingSite) start(hop, rspamd string) {
	s.u = lab.NewUnderstudy(s.t, hop, lab.Settings{
		"spam.engine": "rspamd", "spam.url": "http://" + rspamd, "spam.on_failure": s.policy,
		"spam.timeout":          filterTimeout.String(),
		"spam.breaker.failures": 2, "spam.breaker.cool_down": "200ms",
		"smtp.queue.retry_first": "1s",
	})
	s.u.Start()
	s.admin = admin.NewClient(s.u.Admin)
	s.t.Cleanup(s.admin.Close)
}

func (s *failingSite) name() string {
	return fmt.Sprintf("%s (%s)", s.policy, map[bool]string{true: "direct", false: "front"}[s.direct])
}

// message makes the next message; bad ones are spam to every engine.
func (s *failingSite) message(bad bool) lab.Message {
	m := mail(17, 4<<10).Message(s.next, lab.Line)
	m.From = fmt.Sprintf("s%d@ext.test", s.next)
	if bad {
		m.Text = append(slices.Clip(m.Text), gtube+"\r\n"...)
	}
	s.next++
	return m
}

// send sends m, books what was answered, and says how long that took.
func (s *failingSite) send(m lab.Message) (took time.Duration, err error) {
	c, err := lab.Dial(s.t.Context(), s.u.SMTP)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	err = c.Send(m)
	s.ledger.Record(m, err)
	return time.Since(began), err
}

// alarm is the engine's alarm; empty is none.
func (s *failingSite) alarm() string {
	st, err := s.admin.Status(s.t.Context())
	if err != nil {
		s.t.Errorf("%s: status: %v", s.name(), err)
	}
	for _, a := range st.Alarms {
		if a.Key == filterAlarm {
			return a.Text
		}
	}
	return ""
}

// judged is the verdict that was kept with m; nil where m is not in the queue.
func (s *failingSite) judged(m lab.Message) *smtp.Verdict {
	id := ""
	err := s.admin.List(s.t.Context(), admin.Selection{}, func(q queue.Summary) error {
		if q.Sender == m.From {
			id = q.ID
		}
		return nil
	})
	if err != nil || id == "" {
		s.t.Errorf("%s: message %d is not in the queue: %v", s.name(), m.ID, err)
		return nil
	}
	d, err := s.admin.Show(s.t.Context(), id)
	if err != nil {
		s.t.Errorf("%s: message %d: %v", s.name(), m.ID, err)
		return nil
	}
	return d.Envelope.Verdict
}

// works wants verdicts of Rspamd, and no alarm. Right after a failure a message may
// still find the breaker open: its sender tries again.
func (s *failingSite) works(when string) {
	m := s.message(false)
	lab.Wait(s.t, 20*time.Second, "rspamd judges again", func() error {
		_, err := s.send(m)
		if err != nil {
			return err
		}
		if v := s.judged(m); v == nil || v.Engine != "rspamd" || len(v.Symbols) < 2 {
			m = s.message(false)
			return fmt.Errorf("judged %+v", v)
		}
		return nil
	})
	if a := s.alarm(); a != "" {
		s.t.Errorf("%s: %s: the alarm stays: %s", s.name(), when, a)
	}
	if _, err := s.send(s.message(true)); outcome(err) != "rejected" {
		s.t.Errorf("%s: %s: spam is %s", s.name(), when, outcome(err))
	}
}

// fails wants what on_failure says, for messages that reach the engine and for
// those that come while it is left alone, each within the time limit.
func (s *failingSite) fails(how string, least time.Duration) {
	var first, longest, shortest time.Duration
	for i := range 5 {
		bad := i%2 == 1
		m := s.message(bad)
		took, err := s.send(m)
		longest = max(longest, took)
		if i == 0 {
			first, shortest = took, took
		}
		shortest = min(shortest, took)
		want := map[string]string{"tempfail": "deferred", "accept": "accepted", "builtin": map[bool]string{true: "rejected", false: "accepted"}[bad]}[s.policy]
		if got := outcome(err); got != want {
			s.t.Errorf("%s: %s: message %d (bad: %v) is %s, want %s (%v)", s.name(), how, i, bad, got, want, err)
		}
		if r, ok := errors.AsType[*lab.ReplyError](err); ok && r.Code/100 == 4 {
			s.deferred = append(s.deferred, m)
			if r.Code != 451 {
				s.t.Errorf("%s: %s: %v", s.name(), how, err)
			}
		}
		if err != nil {
			continue
		}
		v := s.judged(m)
		engine := map[string]string{"accept": "rspamd", "builtin": "builtin"}[s.policy]
		if v == nil || v.Engine != engine || (s.policy == "accept") != slices.ContainsFunc(v.Symbols, func(y smtp.Symbol) bool { return y.Name == "FILTER_UNAVAILABLE" }) {
			s.t.Errorf("%s: %s: verdict %+v", s.name(), how, v)
		}
	}
	if first < least {
		s.t.Errorf("%s: %s: the first answer came after %v, before the time limit: the engine did not fail as it should", s.name(), how, first)
	}
	if longest > filterTimeout+filterSlack {
		s.t.Errorf("%s: %s: an answer took %v", s.name(), how, longest)
	}
	if shortest > filterTimeout/2 {
		s.t.Errorf("%s: %s: every message waits for the engine, %v at least: it is not left alone", s.name(), how, shortest)
	}
	if a := s.alarm(); !strings.Contains(a, "rspamd gives no verdict ("+s.policy) {
		s.t.Errorf("%s: %s: alarm %q", s.name(), how, a)
	}
	s.t.Logf("%s: %s: answers within %v, the quickest %v", s.name(), how, longest.Round(time.Millisecond), shortest.Round(time.Millisecond))
}

// over sends again what was deferred, and wants everything that was answered 250
// to arrive once.
func (s *failingSite) over(arrived func() map[int][]lab.Sum) {
	for _, m := range s.deferred {
		bad := strings.Contains(string(m.Text), gtube)
		if _, err := s.send(m); outcome(err) != map[bool]string{true: "rejected", false: "accepted"}[bad] {
			s.t.Errorf("%s: message %d sent again: %v", s.name(), m.ID, err)
		}
	}
	if s.policy == "tempfail" && len(s.deferred) == 0 {
		s.t.Errorf("%s: nothing was deferred", s.name())
	}
	s.u.CLI("queue", "flush", "--wait")
	waitEmpty(s.t, s.u, 30*time.Second)
	mine := map[int][]lab.Sum{}
	for id, sums := range arrived() {
		if id >= s.next-20_000 && id <= s.next {
			mine[id] = sums
		}
	}
	audit(s.t, s.ledger, mine, false)
}

// mode is how an awkward front answers.
type mode int32

const (
	healthy mode = iota
	hung
	slow
	nonsense
	brokenInside
)

func (m mode) String() string {
	return [...]string{"healthy", "hung", "slow", "nonsense", "500"}[m]
}

// least is the time that the first message must take: without it the engine did
// not fail the way it says.
func (m mode) least() time.Duration {
	if m == hung || m == slow {
		return filterTimeout
	}
	return 0
}

// awkward stands before an Rspamd and answers in its stead.
type awkward struct {
	addr string
	mode atomic.Int32
}

func startAwkward(t *testing.T, behind string) *awkward {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's listener
	if err != nil {
		t.Fatal(err)
	}
	a := &awkward{addr: l.Addr().String()}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: behind})
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch mode(a.mode.Load()) {
		case healthy:
			to.ServeHTTP(w, r)
			return
		case nonsense:
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, `{"action": ["maybe"], "score": "NaN`)
			return
		case brokenInside:
			http.Error(w, `{"error": "out of everything"}`, http.StatusInternalServerError)
			return
		case slow: // a good answer, but a byte at a time
			_, _ = io.Copy(io.Discard, r.Body)
			for _, b := range []byte(`{"action": "no action", "score": 0.1, "required_score": 15, "symbols": {}}`) {
				if !stillWaits(r, 100*time.Millisecond) {
					return
				}
				_, _ = w.Write([]byte{b})
				_ = http.NewResponseController(w).Flush()
			}
			return
		case hung:
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-ended
	})
	return a
}

// stillWaits waits, and says whether anybody still does.
func stillWaits(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-r.Context().Done():
		return false
	case <-timer.C:
		return true
	}
}
