package builtin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
	"understudy/smtp/auth"
	"understudy/spamsync"
	"understudy/spamsync/message"
)

// Engine is the name in verdicts.
const Engine = "builtin"

// Deps is what the engine works with.
type Deps struct {
	// Hostname is our name, in Authentication-Results and against forged HELOs.
	Hostname string
	// Domains are ours; nobody outside may introduce itself as one.
	Domains []string
	// State is what both sites share.
	State spamsync.State
	// Greylist defers; nil greylists nothing.
	Greylist *spamsync.Greylist
	// Resolver answers DNS questions through a cache; nil asks nobody.
	Resolver auth.Resolver
	// Alarms, Logger and Registerer may be nil.
	Alarms     smtp.Alarms
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Filter is the engine. Its methods may be called concurrently.
type Filter struct {
	config     Config
	deps       Deps
	scores     map[string]float64
	trusted    []netip.Prefix
	resolver   auth.Resolver // nil: no DNS
	lists      *lists
	bayes      *spamsync.Classifier
	reputation *spamsync.Reputation
	ratelimit  *spamsync.Ratelimit
	metrics    *metrics
	logger     *slog.Logger
}

var _ smtp.Filter = (*Filter)(nil)

// New returns an engine. It asks nobody anything yet.
func New(c Config, d Deps) (*Filter, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if d.State == nil {
		return nil, errors.New("no spam state")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	d.Domains = slices.Clone(d.Domains)
	for i := range d.Domains {
		d.Domains[i] = strings.ToLower(d.Domains[i])
	}
	f := &Filter{config: c, deps: d, scores: defaults(), metrics: newMetrics(d.Registerer), logger: d.Logger}
	for _, z := range append(slices.Clone(c.DNSBL), c.URIBL...) {
		f.scores[z.Symbol] = z.Score
	}
	maps.Copy(f.scores, c.Scores)
	var err error
	if f.trusted, err = parseNetworks(c.Trusted); err != nil {
		return nil, err
	}
	if d.Resolver != nil {
		cache := auth.NewCache(d.Resolver, c.DNSCache)
		f.resolver = cache
		f.lists = &lists{resolver: cache, alarms: d.Alarms, logger: d.Logger, metrics: f.metrics, broken: make(map[string]bool)}
		if f.lists.dnsbl, err = zones(c.DNSBL); err != nil {
			return nil, err
		}
		if f.lists.uribl, err = zones(c.URIBL); err != nil {
			return nil, err
		}
	}
	f.bayes = &spamsync.Classifier{State: d.State, MinLearns: c.Bayes.MinLearns}
	f.reputation = &spamsync.Reputation{State: d.State, Config: c.Reputation}
	f.ratelimit = &spamsync.Ratelimit{State: d.State, Config: c.Ratelimit}
	return f, nil
}

// Report is a judgement with its reasons.
type Report struct {
	Verdict  smtp.Verdict `json:"verdict"`
	Findings []Finding    `json:"findings"`
	// Auth is what was found about the sender.
	Auth auth.Results `json:"-"`
	// Bayes is what the classifier said.
	Bayes spamsync.Bayes `json:"bayes"`
	// Digest names the message for learning.
	Digest string `json:"digest"`
}

// Check implements smtp.Filter: it judges, and remembers what the greylist, the
// rate limit and the reputation need. The only errors are a message that cannot
// be read and the end of ctx.
func (f *Filter) Check(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker) (smtp.Verdict, error) {
	start := time.Now()
	r, err := f.judge(ctx, env, body, true)
	if err != nil {
		return smtp.Verdict{}, err
	}
	f.metrics.seconds.Observe(time.Since(start).Seconds())
	f.metrics.messages.WithLabelValues(actionName(r.Verdict)).Inc()
	return r.Verdict, nil
}

// Explain judges without changing anything anywhere but the DNS cache.
func (f *Filter) Explain(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker) (Report, error) {
	return f.judge(ctx, env, body, false)
}

// judgement is one message on its way to a verdict.
type judgement struct {
	env   *smtp.Envelope
	m     *message.Message
	auth  auth.Results
	found findings
	// outside: the client is neither ours, nor authenticated, nor trusted.
	outside bool
	domain  string // authenticated; may be empty
	tokens  []spamsync.Token
	bayes   spamsync.Bayes
	rate    spamsync.Rate
	now     time.Time
}

func (f *Filter) judge(ctx context.Context, env *smtp.Envelope, body io.ReadSeeker, remember bool) (Report, error) {
	m, err := f.read(ctx, body)
	if err != nil {
		return Report{}, err
	}
	j := &judgement{env: env, m: m, now: f.deps.Now(), found: findings{scores: f.scores}}
	addr := env.Client.Addr.Addr().Unmap()
	j.outside = !env.Client.Peer && env.Client.User == "" && !contains(f.trusted, addr)
	inspect(&j.found, env, m)
	if j.outside {
		inspectClient(&j.found, env.Client, f.deps.Hostname, f.deps.Domains)
	}
	if err := f.askDNS(ctx, j, body); err != nil {
		return Report{}, err
	}
	f.askState(ctx, j)
	if err := ctx.Err(); err != nil {
		return Report{}, fmt.Errorf("judge message: %w", err)
	}
	r := f.decide(ctx, j, remember)
	if remember {
		f.remember(ctx, j, r)
	}
	return r, nil
}

// read parses the message; ctx ends it.
func (f *Filter) read(ctx context.Context, body io.ReadSeeker) (*message.Message, error) {
	size, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("measure message: %w", err)
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind message: %w", err)
	}
	m, err := message.Parse(&wholeReader{r: endingReader{ctx, body}, left: size}, message.Limits{})
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	return m, nil
}

// endingReader ends with its context: one check, one reader.
type endingReader struct {
	ctx context.Context //nolint:containedctx // lives as long as one call
	r   io.Reader
}

func (r endingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// wholeReader fails where a message ends before its size: half a message gets no
// verdict.
type wholeReader struct {
	r    io.Reader
	left int64
}

func (w *wholeReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.left -= int64(n)
	if errors.Is(err, io.EOF) && w.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// askDNS finds out who sent the message and who lists it. Everything that needs
// DNS runs at the same time, and before what reads the message, so that a big one
// does not use up the time; body belongs to this goroutine.
func (f *Filter) askDNS(ctx context.Context, j *judgement, body io.ReadSeeker) error {
	if f.resolver == nil {
		return nil
	}
	dns, cancel := context.WithTimeout(ctx, f.config.DNSTimeout)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // before the wait
	verifier := &auth.Verifier{Resolver: f.prefetch(dns, j, &wg), Timeout: f.config.DNSTimeout}
	c := j.env.Client
	sender := auth.Sender{Addr: c.Addr.Addr(), HELO: c.HELO, MailFrom: j.env.Sender}
	if j.outside {
		wg.Go(func() { j.auth.Helo, j.auth.MailFrom = verifier.SPF(dns, sender) })
	}
	addr := c.Addr.Addr().Unmap()
	public := addr.IsValid() && addr.IsGlobalUnicast() && !addr.IsPrivate()
	var hits []hit
	if qs := f.lists.questions(addr, j.outside && public, j.m); len(qs) > 0 {
		wg.Go(func() { hits = f.lists.ask(dns, qs) })
	}
	var err error
	if j.m.Get("DKIM-Signature") != "" {
		err = again(ctx, body, func(r io.Reader) (err error) { j.auth.DKIM, err = verifier.DKIM(ctx, r); return err })
	}
	j.auth.ARC = auth.ARCResult{Result: auth.None}
	if err == nil && (j.m.Get("ARC-Seal") != "" || j.m.Get("ARC-Message-Signature") != "") {
		err = again(ctx, body, func(r io.Reader) (err error) { j.auth.ARC, err = verifier.ARC(ctx, r); return err })
	}
	wg.Wait()
	if err != nil {
		return err
	}
	if j.outside {
		j.auth.DMARC = verifier.DMARC(ctx, j.m.Values("From"), j.auth.MailFrom, j.auth.DKIM)
		j.auth.IPRev, j.auth.Addr = auth.Fail, addr.String()
		if c.ReverseName != "" {
			j.auth.IPRev = auth.Pass
		}
	}
	f.judgeAuth(j)
	for _, h := range hits {
		j.found.add(h.symbol, h.why)
	}
	return nil
}

// again gives the message to read from its beginning.
func again(ctx context.Context, body io.ReadSeeker, read func(io.Reader) error) error {
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("rewind message: %w", err)
	}
	return read(endingReader{ctx, body})
}

// askState asks what was learned. What has no answer counts for nothing.
func (f *Filter) askState(ctx context.Context, j *judgement) {
	failed := func(what string, err error) {
		f.metrics.stateErrors.Inc()
		f.logger.Warn("spam state does not answer", "asked", what, "err", err)
	}
	j.tokens = spamsync.Tokenize(j.m)
	b, err := f.bayes.Classify(ctx, j.tokens)
	if err != nil {
		failed("bayes", err)
	}
	j.bayes = b
	if b.Ready {
		words := make([]string, len(b.Evidence))
		for i, e := range b.Evidence {
			words[i] = e.Text
		}
		why := fmt.Sprintf("%.1f %% of %d tokens: %s", b.Probability*100, b.Used, strings.Join(words, ", "))
		switch p := b.Probability; {
		case p > 0.5:
			j.found.part(symBayesSpam, bayesShare(p), why)
		case p < 0.5:
			j.found.part(symBayesHam, bayesShare(1-p), why)
		}
	}
	if !j.outside {
		return
	}
	if f.config.Reputation.Enabled {
		if s, err := f.reputation.Look(ctx, j.now, f.reputationKeys(j)...); err != nil {
			failed("reputation", err)
		} else {
			judgeReputation(&j.found, s)
		}
	}
	if j.rate, err = f.ratelimit.Look(ctx, j.env.Client.Addr.Addr(), j.now); err != nil {
		failed("rate", err)
	}
	if j.rate.Over {
		j.found.add(symRatelimited, fmt.Sprintf("%.0f messages", j.rate.Messages))
	}
}

// bayesShare rises from 0 at 60 % to 1 at 100 %, steeply at first.
func bayesShare(p float64) float64 {
	if p <= 0.6 {
		return 0
	}
	x := (p - 0.6) / 0.4
	return round(1 - (1-x)*(1-x))
}

// reputationKeys are what the sender is known by.
func (f *Filter) reputationKeys(j *judgement) []string {
	keys := []string{f.reputation.NetworkKey(j.env.Client.Addr.Addr())}
	if j.domain != "" {
		keys = append(keys, f.reputation.DomainKey(auth.OrganizationalDomain(j.domain)))
	}
	return keys
}

// judgeReputation takes the domain's standing where it has one, else the network's.
func judgeReputation(f *findings, s []spamsync.Standing) {
	best := s[0]
	if last := s[len(s)-1]; last.Known() {
		best = last
	}
	why := fmt.Sprintf("%.1f spam, %.1f ham", best.Spam, best.Ham)
	switch score := best.Score(); {
	case score > 0.1:
		f.part(symRepSpam, score, why)
	case score < -0.1:
		f.part(symRepHam, -score, why)
	}
}
