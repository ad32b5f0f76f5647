package recipients

import (
	"context"
	"time"

	"understudy/smtp"
)

// Explanation is an answer and where it comes from.
type Explanation struct {
	// Address is what was asked for in the form in which it is compared.
	Address string `json:"address"`
	// Answer is "exists", "unknown" or "unsure", without regard to audit mode.
	Answer string `json:"answer"`
	Reason string `json:"reason"`
	// Audit says that nobody is refused at the moment, whatever the answer.
	Audit   bool           `json:"audit,omitempty"`
	Sources []SourceAnswer `json:"sources"`
}

// SourceAnswer is what one source says about one address.
type SourceAnswer struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Answer is "yes", "no" or "unsure".
	Answer string `json:"answer"`
	// Matched is the entry that matched: the address, it without its extension, a
	// catch-all, or a pattern.
	Matched string `json:"matched,omitempty"`
	// AsOf is when the source said so; zero where it never answered or does not know.
	AsOf time.Time `json:"as_of,omitzero"`
	// AgeSeconds is the age of that; -1 where the source does not know.
	AgeSeconds float64 `json:"age_seconds"`
	// Fresh says that its "no" counts in full.
	Fresh bool `json:"fresh"`
	// Detail is the last error, or what keeps the source from being believed, or
	// the primary's own words.
	Detail string `json:"detail,omitempty"`
}

// Explain answers for one address and says why. Unlike Lookup it asks every
// source, also when the answer is known.
func (d *Directory) Explain(ctx context.Context, address string) (Explanation, error) {
	a, err := smtp.ParseAddress(address)
	if err != nil {
		return Explanation{}, err
	}
	p := d.policy.Load()
	ex := &Explanation{Address: a.String(), Audit: p.audit}
	ex.Answer = d.decide(ctx, p, a, ex).String()
	return *ex, nil
}

func (ex *Explanation) source(s *source, k knowledge, matched string, found bool, now time.Time) {
	sa := SourceAnswer{
		Name: s.cfg.Name, Kind: s.cfg.Kind, Answer: "no", Matched: matched,
		Fresh: k.fresh(now, s.cfg.MaxAge), Detail: k.detail(),
	}
	if k.current != nil {
		sa.AsOf, sa.AgeSeconds = k.current.asOf, k.age(now)
	}
	switch {
	case found:
		sa.Answer = "yes"
	case !sa.Fresh:
		sa.Answer = "unsure"
	}
	ex.Sources = append(ex.Sources, sa)
}

func (k knowledge) detail() string {
	switch {
	case k.why != "":
		return "not believed: " + k.why
	case k.err != nil:
		return k.err.Error()
	case k.current == nil:
		return "not read yet"
	case !k.current.whole:
		return "its list has malformed entries"
	}
	return ""
}

// SourceStatus is the state of one source.
type SourceStatus struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Entries int    `json:"entries"`
	// AsOf is as of when its list is; zero where it never answered or does not
	// know, and then AgeSeconds is -1 in the second case.
	AsOf       time.Time `json:"as_of,omitzero"`
	AgeSeconds float64   `json:"age_seconds"`
	Fresh      bool      `json:"fresh"`
	// Pending is the number of entries that wait for approval, Reason why.
	Pending int    `json:"pending,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Error   string `json:"error,omitempty"`
	// Asked is when the source was asked last.
	Asked time.Time `json:"asked,omitzero"`
}

// Status is the state of the whole directory.
type Status struct {
	Sources []SourceStatus `json:"sources"`
	Audit   *AuditStatus   `json:"audit,omitempty"`
}

// Status returns the state of all sources.
func (d *Directory) Status() Status {
	now := time.Now()
	var st Status
	for _, s := range d.sources {
		s.mu.RLock()
		k, asked := knowledge{s.current, s.pending, s.err, s.why}, s.tried
		s.mu.RUnlock()
		one := SourceStatus{
			Name: s.cfg.Name, Kind: s.cfg.Kind, Entries: k.current.count(),
			Fresh: k.fresh(now, s.cfg.MaxAge), Pending: k.pending.count(), Reason: k.why, Asked: asked,
		}
		if k.current != nil {
			one.AsOf, one.AgeSeconds = k.current.asOf, k.age(now)
		}
		if k.err != nil {
			one.Error = k.err.Error()
		}
		st.Sources = append(st.Sources, one)
	}
	for _, c := range d.callouts {
		st.Sources = append(st.Sources, c.status(now))
	}
	if d.policy.Load().audit {
		st.Audit = d.audit.status()
	}
	return st
}
