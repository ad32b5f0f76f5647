package probe

// Hysteresis turns single results into a judgement that does not flap: Bad
// failures in a row make sick what was well, Good successes in a row make well
// what was sick. The zero value is well, with 3 and 10. It is not safe for
// concurrent use.
type Hysteresis struct {
	// Bad and Good are counts; 0 is 3, and 10.
	Bad, Good int

	sick bool
	run  int // results in a row that speak against sick
}

// Observe takes one result and returns whether the service is well.
func (h *Hysteresis) Observe(ok bool) (well bool) {
	if ok != h.sick {
		h.run = 0
		return !h.sick
	}
	h.run++
	limit := h.Bad
	if limit == 0 {
		limit = 3
	}
	if h.sick {
		if limit = h.Good; limit == 0 {
			limit = 10
		}
	}
	if h.run >= limit {
		h.sick, h.run = !h.sick, 0
	}
	return !h.sick
}
