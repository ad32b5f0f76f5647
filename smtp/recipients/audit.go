package recipients

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
)

// Bounds of audit mode.
const (
	auditQueue    = 1000   // addresses that wait for the primary's answer
	auditSeen     = 50_000 // addresses asked for already
	auditExamples = 50     // differences that are shown
)

// audit compares what would have been answered with the primary's own answer.
type audit struct {
	log      *slog.Logger
	hostname string
	results  *prometheus.CounterVec
	rules    rules
	queue    chan auditCase

	mu   sync.Mutex
	on   bool
	ask  *asker // nil compares nothing
	seen map[string]struct{}
	st   AuditStatus
}

type auditCase struct {
	address smtp.Address
	answer  smtp.Disposition
	ask     *asker
}

// AuditStatus is how far the comparison with the primary has come. Every
// address is compared once.
type AuditStatus struct {
	// Refused counts look-ups that would have been answered 550 or 450.
	Refused int64 `json:"would_refuse"`
	// Agree counts addresses on which the primary says the same.
	Agree int64 `json:"agree"`
	// TooStrict counts those it accepts and we would have refused with 550;
	// TooLax those we accept and it refuses.
	TooStrict int64 `json:"too_strict"`
	TooLax    int64 `json:"too_lax"`
	// Unanswered counts those the primary gave no clear answer to, or we.
	Unanswered int64 `json:"unanswered"`
	// Differences are the last ones, newest first.
	Differences []AuditDifference `json:"differences,omitempty"`
	// Since is when the last difference was found; zero where there is none.
	Since time.Time `json:"last_difference,omitzero"`
}

// AuditDifference is one address on which the primary disagrees.
type AuditDifference struct {
	Address string    `json:"address"`
	Ours    string    `json:"ours"`
	Primary string    `json:"primary"`
	Detail  string    `json:"detail"`
	At      time.Time `json:"at"`
}

func newAudit(deps Deps, m *metrics, p *policy) *audit {
	a := &audit{
		log: deps.Logger, hostname: deps.Hostname, results: m.audit, rules: p.rules,
		seen: make(map[string]struct{}), queue: make(chan auditCase, auditQueue),
	}
	a.follow(p)
	return a
}

// follow begins anew where p asks another primary, or asks again.
func (a *audit) follow(p *policy) {
	a.mu.Lock()
	defer a.mu.Unlock()
	asks := ""
	if a.ask != nil {
		asks = a.ask.address
	}
	if p.audit == a.on && p.primary == asks {
		return
	}
	a.on, a.ask = p.audit, nil
	a.st = AuditStatus{}
	clear(a.seen)
	if p.primary != "" {
		a.ask = newAsker(p.primary, a.hostname, maxCalloutTime)
	}
}

// note takes an answer that audit mode did not give. It never waits.
func (a *audit) note(addr smtp.Address, answer smtp.Disposition) {
	if answer != smtp.Exists {
		a.log.Info("recipient would be refused", "address", addr.String(), "answer", answer.String())
	}
	key := a.rules.key(addr)
	a.mu.Lock()
	defer a.mu.Unlock()
	if answer != smtp.Exists {
		a.st.Refused++
	}
	if _, done := a.seen[key]; done || a.ask == nil {
		return
	}
	if len(a.seen) >= auditSeen {
		clear(a.seen)
	}
	select {
	case a.queue <- auditCase{addr, answer, a.ask}:
		a.seen[key] = struct{}{}
	default: // asked when it comes again
	}
}

// run asks the primary until ctx ends.
func (a *audit) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-a.queue:
			got, detail, err := c.ask.ask(ctx, c.address)
			a.compare(c, got, detail, err != nil)
		}
	}
}

// compare counts an answer of the primary; failed says that there was none, and
// lets the address be asked for again.
func (a *audit) compare(c auditCase, primary calloutAnswer, detail string, failed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.ask != a.ask {
		return // of a primary that is not asked any more
	}
	if failed {
		delete(a.seen, a.rules.key(c.address))
	}
	result := judgeAudit(c.answer, primary)
	a.results.WithLabelValues(result).Inc()
	switch result {
	case "agree":
		a.st.Agree++
		return
	case "unanswered":
		a.st.Unanswered++
		return
	case "too_strict":
		a.st.TooStrict++
	case "too_lax":
		a.st.TooLax++
	}
	now := time.Now()
	a.st.Since = now
	diff := AuditDifference{Address: c.address.String(), Ours: c.answer.String(), Primary: primary.String(), Detail: detail, At: now}
	a.st.Differences = slices.Insert(a.st.Differences, 0, diff)
	if len(a.st.Differences) > auditExamples {
		a.st.Differences = a.st.Differences[:auditExamples]
	}
	a.log.Warn("recipient audit differs from the primary", "address", diff.Address, "ours", diff.Ours, "primary", diff.Primary, "detail", detail)
}

// judgeAudit compares two answers.
func judgeAudit(ours smtp.Disposition, primary calloutAnswer) string {
	switch {
	case ours == smtp.Unsure || primary == calloutUnsure:
		return "unanswered"
	case (ours == smtp.Exists) == (primary == calloutYes):
		return "agree"
	case ours == smtp.Unknown:
		return "too_strict"
	}
	return "too_lax"
}

func (a *audit) status() *AuditStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := a.st
	st.Differences = slices.Clone(st.Differences)
	return &st
}
