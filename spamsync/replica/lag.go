package replica

import "time"

// lagSamples is how many looks at home are remembered: about 25 s.
const lagSamples = 128

// lag measures how far this Redis is behind home, and how much home writes.
type lag struct {
	samples [lagSamples]struct {
		at     time.Time
		offset int64
	}
	n       int
	id      string
	bytes   int64
	seconds float64
}

// peer takes a look at home.
func (l *lag) peer(s Seen) {
	if !s.Up() {
		return
	}
	if s.Now.ID != l.id {
		*l = lag{id: s.Now.ID}
	}
	at := &l.samples[l.n%lagSamples]
	at.at, at.offset = s.At, s.Now.Offset
	l.n++
}

// local takes a look at this Redis; home is the last one at home.
func (l *lag) local(s, home Seen) {
	l.bytes, l.seconds = 0, 0
	if !s.Replica() || !home.Up() || s.Now.ID != home.Now.ID {
		return
	}
	l.bytes = max(home.Now.Offset-s.Now.Offset, 0)
	if l.bytes == 0 {
		return
	}
	// Since when does it not have what home had?
	for i := max(0, l.n-lagSamples); i < l.n; i++ {
		if x := l.samples[i%lagSamples]; x.offset > s.Now.Offset {
			l.seconds = s.At.Sub(x.at).Seconds()
			return
		}
	}
}

// rate is how many bytes a second home writes, over the last samples.
func (l *lag) rate() float64 {
	if l.n < 2 {
		return 0
	}
	first, last := l.samples[max(0, l.n-lagSamples)%lagSamples], l.samples[(l.n-1)%lagSamples]
	d := last.at.Sub(first.at).Seconds()
	if d <= 0 {
		return 0
	}
	return float64(last.offset-first.offset) / d
}
