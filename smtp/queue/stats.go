package queue

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"understudy/smtp"
)

// ageBounds are the columns of the table by domain and age.
func ageBounds() []time.Duration {
	const m, h, d = time.Minute, time.Hour, 24 * time.Hour
	return []time.Duration{5 * m, 10 * m, 20 * m, 40 * m, 80 * m, 3 * h, 6 * h, 12 * h, d, 2 * d, 4 * d, 8 * d, 16 * d}
}

// Stats counts the queue.
func (s *Spool) Stats(ctx context.Context) (Stats, error) {
	if err := ctx.Err(); err != nil {
		return Stats{}, err
	}
	bounds := ageBounds()
	st := Stats{AgeBounds: bounds, States: make(map[State]StateStats), ReserveBytes: s.cfg.ReserveBytes}
	rows := make(map[string]*DomainStats)
	var spilled int64
	now := time.Now().UnixNano()
	oldest := int64(0)
	s.mu.Lock()
	for i, state := range allStates() {
		st.States[state] = StateStats{s.totals.messages[i], s.totals.bytes[i]}
		st.Messages += s.totals.messages[i]
		st.Bytes += s.totals.bytes[i]
	}
	n := 0
	for _, m := range s.messages {
		if oldest == 0 || m.received < oldest {
			oldest = m.received
		}
		if m.spill != nil {
			spilled += m.spill.size
		}
		st.Recipients += m.tally(rows, bounds, now)
		if n++; n%scanPause == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	s.mu.Unlock()
	if oldest != 0 {
		st.Oldest = time.Unix(0, oldest).UTC()
	}
	st.Domains, st.Total = table(rows, len(bounds)+1)
	for _, g := range s.log.Segments() {
		st.DiskBytes += g.UsedBytes
	}
	st.DiskBytes += spilled
	s.space.measure()
	st.FreeBytes = s.space.last.Load()
	return st, nil
}

// tally counts the open recipients of m into its domains' rows, and returns how
// many recipients it has.
func (m *message) tally(rows map[string]*DomainStats, bounds []time.Duration, now int64) int {
	column := 0
	for column < len(bounds) && now-m.received >= int64(bounds[column]) {
		column++
	}
	for i := range m.rcpts {
		if m.rcpts[i].outcome == smtp.Delivered {
			continue
		}
		domain := domainOf(m.rcpts[i].addr.Value())
		row := rows[domain]
		if row == nil {
			row = &DomainStats{Domain: domain, Ages: make([]int, len(bounds)+1)}
			rows[domain] = row
		}
		row.Total++
		row.Ages[column]++
	}
	return len(m.rcpts)
}

// table folds the case of the domains, sorts the rows and sums them up.
func table(rows map[string]*DomainStats, columns int) ([]DomainStats, DomainStats) {
	total := DomainStats{Domain: "TOTAL", Ages: make([]int, columns)}
	folded := make(map[string]*DomainStats)
	for name, row := range rows {
		row.Domain = strings.ToLower(name)
		into := folded[row.Domain]
		if into == nil {
			into = &DomainStats{Domain: row.Domain, Ages: make([]int, columns)}
			folded[row.Domain] = into
		}
		into.Total += row.Total
		total.Total += row.Total
		for i, n := range row.Ages {
			into.Ages[i] += n
			total.Ages[i] += n
		}
	}
	out := make([]DomainStats, 0, len(folded))
	for _, row := range folded {
		out = append(out, *row)
	}
	slices.SortFunc(out, func(a, b DomainStats) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Domain, b.Domain))
	})
	return out, total
}
