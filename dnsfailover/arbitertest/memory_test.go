package arbitertest

import (
	"testing"

	"understudy/dnsfailover"
)

func TestConformance(t *testing.T) {
	zone := NewZone()
	broken := func(err error) func(*testing.T) dnsfailover.Arbiter {
		return func(*testing.T) dnsfailover.Arbiter {
			c := zone.Client()
			c.Fail(err)
			return c
		}
	}
	Run(t, Lab{
		Client: func(*testing.T, dnsfailover.Site) dnsfailover.Arbiter { return zone.Client() },
		Zone:   "example.net.",
		Edit:   func(_ *testing.T, set dnsfailover.RRSet) { zone.Edit(set) },
		Drop:   func(*testing.T) { zone.Put(dnsfailover.Register{}) },

		Unreachable: broken(dnsfailover.ErrUnreachable),
		WrongKey:    broken(dnsfailover.ErrBadKey),
	})
}
