package recipients

import "understudy/smtp"

// policy is what may change while running. It is immutable.
type policy struct {
	rules     rules
	whenStale string
	domains   map[string]string // when_stale of domains set apart
	audit     bool
	primary   string // whom audit mode asks; empty is nobody
}

// policy returns what the configuration says of it.
func (c Config) policy() (*policy, error) {
	p := &policy{
		rules:     rules{caseSensitive: c.CaseSensitive, delimiters: c.Delimiter},
		whenStale: c.WhenStale,
		domains:   make(map[string]string),
		audit:     c.Audit,
	}
	orDefault(&p.whenStale, StaleTempfail)
	if c.Audit {
		p.primary = c.AuditAddress
	}
	for _, dom := range c.Domains {
		name, err := smtp.NormalizeDomain(dom.Name)
		if err != nil {
			return nil, err
		}
		p.domains[name] = dom.WhenStale
	}
	return p, nil
}

// stale returns the domain's when_stale.
func (p *policy) stale(domain string) string {
	if apart, ok := p.domains[domain]; ok {
		return apart
	}
	return p.whenStale
}

// Following returns c with those of changed's settings that Reload puts in force.
func (c Config) Following(changed Config) Config {
	c.WhenStale, c.Domains, c.Delimiter = changed.WhenStale, changed.Domains, changed.Delimiter
	c.Audit, c.AuditAddress = changed.Audit, changed.AuditAddress
	return c
}

// Reload puts when_stale, domains, delimiter, audit and audit_address of cfg in
// force for the next look-up. All else, the sources above all, needs a restart
// and stays as it is. On error everything does. A change of audit or
// audit_address begins the comparison anew.
func (d *Directory) Reload(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	p, err := d.cfg.Following(cfg).policy()
	if err != nil {
		return err
	}
	d.audit.follow(p)
	d.policy.Store(p)
	return nil
}
