package recipients

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/internal/durable"
	"understudy/smtp"
)

// Deps is what a Directory needs from others.
type Deps struct {
	// Domains are the domains mail is taken for.
	Domains *smtp.Domains
	// Hostname is the name given in callouts.
	Hostname string
	// Dir is where the last good lists are kept; empty keeps them in memory only.
	Dir string
	// FS is the file system of Dir; nil is the real one.
	FS     durable.FS
	Logger *slog.Logger
	Alarms smtp.Alarms
	// Registerer takes the metrics; nil keeps them private.
	Registerer prometheus.Registerer
}

// Directory unites the configured sources. All methods may be called
// concurrently.
type Directory struct {
	cfg      Config // as it was at the start
	policy   atomic.Pointer[policy]
	sources  []*source
	callouts []*callout
	deps     Deps
	metrics  *metrics
	audit    *audit
	ran      map[*source]bool // read by New already
}

var _ smtp.Recipients = (*Directory)(nil)

// New reads what is on this machine: the last good lists in deps.Dir, and the
// files among the sources. A file that cannot be read is no error, but an alarm.
// Everything else is asked by Run.
func New(cfg Config, deps Deps) (*Directory, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Domains == nil || deps.Logger == nil || deps.Alarms == nil {
		return nil, errors.New("recipients need domains, logger and alarms")
	}
	if deps.FS == nil {
		deps.FS = durable.OS()
	}
	p, err := cfg.policy()
	if err != nil {
		return nil, err
	}
	d := &Directory{
		cfg:     cfg,
		deps:    deps,
		metrics: newMetrics(deps.Registerer),
		ran:     make(map[*source]bool),
	}
	d.policy.Store(p)
	if deps.Dir != "" {
		if err := deps.FS.MkdirAll(deps.Dir, 0o750); err != nil {
			return nil, fmt.Errorf("make recipients directory: %w", err)
		}
	}
	for _, sc := range cfg.sources() {
		if err := d.open(sc, p.rules); err != nil {
			return nil, err
		}
	}
	if deps.Registerer != nil {
		deps.Registerer.MustRegister(ageCollector(d.sources)...)
	}
	d.audit = newAudit(deps, d.metrics, p)
	return d, nil
}

// open makes one source and reads what is on disk.
func (d *Directory) open(sc SourceConfig, r rules) error {
	if sc.Kind == KindCallout {
		c, err := newCallout(sc, r, d.deps, d.metrics)
		if err != nil {
			return err
		}
		d.callouts = append(d.callouts, c)
		return nil
	}
	f, err := newFetcher(sc)
	if err != nil {
		return err
	}
	snap := snapshot{fs: d.deps.FS, dir: d.deps.Dir, name: sc.Name, identity: fingerprint(sc, r)}
	s := &source{
		cfg: sc, rules: r, ours: d.deps.Domains.Has, fetcher: f,
		log: d.deps.Logger, alarms: d.deps.Alarms, metrics: d.metrics,
		keep: snap.write, touch: snap.touch,
	}
	d.sources = append(d.sources, s)
	switch st, err := snap.read(); {
	case err != nil:
		d.deps.Logger.Warn("recipient snapshot not read", "source", sc.Name, "err", err)
	case st != nil:
		s.current = st
		d.metrics.entries.WithLabelValues(sc.Name).Set(float64(st.count()))
		d.deps.Logger.Info("recipients known from before", "source", sc.Name, "entries", st.count(), "as_of", st.asOf)
	}
	if sc.Kind == KindFile {
		d.ran[s] = true
		_ = s.refresh(context.Background()) // the error is in the status, the log and the alarm
	}
	return nil
}

// newFetcher makes the fetcher of a kind that lists addresses.
func newFetcher(sc SourceConfig) (fetcher, error) {
	switch sc.Kind {
	case KindFile:
		return &file{path: sc.Path, format: sc.Format, max: sc.MaxBytes}, nil
	case KindCommand:
		return newCommand(sc), nil
	case KindSQL:
		return newSQL(sc), nil
	case KindLDAP:
		return &directorySearch{cfg: sc}, nil
	case KindRedis:
		return &redisSet{cfg: sc}, nil
	}
	return nil, fmt.Errorf("source %q: unknown kind", sc.Kind)
}

// Run asks the sources again and again until ctx ends; all goroutines have ended
// when it returns.
func (d *Directory) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, s := range d.sources {
		wg.Go(func() { s.run(ctx, d.ran[s]) })
	}
	for _, c := range d.callouts {
		wg.Go(func() { c.run(ctx) })
	}
	wg.Go(func() { d.audit.run(ctx) })
	wg.Wait()
	return nil
}

// Lookup implements smtp.Recipients. In audit mode it refuses nobody.
func (d *Directory) Lookup(ctx context.Context, address string) (smtp.Disposition, error) {
	a, err := smtp.ParseAddress(address)
	if err != nil {
		return smtp.Unsure, err
	}
	p := d.policy.Load()
	answer := d.decide(ctx, p, a, nil)
	d.metrics.lookups.WithLabelValues(answer.String()).Inc()
	if p.audit {
		d.audit.note(a, answer)
		return smtp.Exists, nil
	}
	return answer, nil
}

// decide asks all sources. It notes what they said in ex unless that is nil.
func (d *Directory) decide(ctx context.Context, p *policy, a smtp.Address, ex *Explanation) smtp.Disposition {
	now := time.Now()
	q := p.rules.query(a)
	full := ""
	if ex != nil || d.hasTables() {
		full = a.Local + "@" + a.Domain
	}
	found := false
	fresh, loaded := true, len(d.sources)+len(d.callouts) > 0
	for _, s := range d.sources {
		k := s.knowledge()
		m, rule, ok := k.find(q, full)
		if ex != nil {
			ex.source(s, k, q.text(m)+rule, ok, now)
		}
		if ok {
			if ex == nil {
				return smtp.Exists
			}
			found = true
		}
		fresh = fresh && k.fresh(now, s.cfg.MaxAge)
		loaded = loaded && k.loaded()
	}
	for _, c := range d.callouts {
		if found && ex == nil {
			break
		}
		v := c.check(ctx, a)
		ex.callout(c, v)
		switch v.answer {
		case calloutYes:
			found = true
		case calloutNo:
		case calloutUnsure:
			fresh = false
			loaded = loaded && v.past
		}
	}
	answer, why := conclude(found, fresh, loaded, p.stale(a.Domain))
	if ex != nil {
		ex.Reason = why
	}
	return answer
}

// conclude is the rule itself: what is found exists; what is not found does not
// exist if all sources are fresh; else when_stale decides, but "exact" never on
// the word of a source that was not read yet.
func conclude(found, fresh, loaded bool, whenStale string) (smtp.Disposition, string) {
	switch {
	case found:
		return smtp.Exists, "a source has it"
	case fresh && loaded:
		return smtp.Unknown, "all sources are fresh and none has it"
	case whenStale == StaleAccept:
		return smtp.Exists, "no source has it; one is stale and when_stale is accept"
	case whenStale == StaleExact && loaded:
		return smtp.Unknown, "no source has it; one is stale and when_stale is exact"
	case !loaded:
		return smtp.Unsure, "no source has it, and one has not been read yet"
	}
	return smtp.Unsure, "no source has it; one is stale and when_stale is tempfail"
}

func (d *Directory) hasTables() bool {
	for _, s := range d.sources {
		if s.cfg.Format == FormatRegexp || s.cfg.Format == FormatPCRE {
			return true
		}
	}
	return false
}

// ErrNoSource is returned by Approve and Refresh for a name that no source has.
var ErrNoSource = errors.New("no such recipient source")

// Approve believes what the named source said last, however much it shrank.
func (d *Directory) Approve(name string) error {
	s, err := d.source(name)
	if err != nil {
		return err
	}
	if err := s.approve(); err != nil {
		return fmt.Errorf("source %s: %w", name, err)
	}
	return nil
}

// Refresh asks the named source now.
func (d *Directory) Refresh(ctx context.Context, name string) error {
	s, err := d.source(name)
	if err != nil {
		return err
	}
	return s.refresh(ctx)
}

func (d *Directory) source(name string) (*source, error) {
	for _, s := range d.sources {
		if s.cfg.Name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNoSource, name)
}
