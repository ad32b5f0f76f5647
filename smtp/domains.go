package smtp

import (
	"errors"
	"maps"
	"slices"
	"sync/atomic"
)

// Domains is the set of domains this site takes mail for. It may be read and
// replaced concurrently.
type Domains struct {
	set atomic.Pointer[map[string]struct{}]
}

// NewDomains returns the set of the listed domains, U-labels or A-labels. The
// error joins all names that are no domains.
func NewDomains(list []string) (*Domains, error) {
	d := &Domains{}
	if err := d.Replace(list); err != nil {
		return nil, err
	}
	return d, nil
}

// Replace swaps the whole set; on error the old one stays.
func (d *Domains) Replace(list []string) error {
	set := make(map[string]struct{}, len(list))
	var faults []error
	for _, name := range list {
		n, err := NormalizeDomain(name)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		set[n] = struct{}{}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	d.set.Store(&set)
	return nil
}

// Has says whether domain is ours. It may be given in any form.
func (d *Domains) Has(domain string) bool {
	set := *d.set.Load()
	if _, ok := set[domain]; ok {
		return true
	}
	n, err := NormalizeDomain(domain)
	if err != nil {
		return false
	}
	_, ok := set[n]
	return ok
}

// List returns the domains in A-label form, sorted.
func (d *Domains) List() []string {
	return slices.Sorted(maps.Keys(*d.set.Load()))
}
