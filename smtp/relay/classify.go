package relay

import (
	"errors"
	"strings"

	"understudy/smtp"
	"understudy/smtp/wire"
)

// kind is what an answer says about the message and about the hop.
type kind uint8

const (
	// unsent: the message was not tried; nothing is recorded.
	unsent kind = iota
	// lost: no answer came; the hop may or may not have the message.
	lost
	// local: our own trouble, for example a body that cannot be read.
	local
	// accepted: 2xx.
	accepted
	// deferred: 4xx about this message or recipient.
	deferred
	// busy: 4xx about the hop itself.
	busy
	// refused: 5xx about this message or recipient.
	refused
	// policy: 5xx that may be about the hop: its rules, its configuration.
	policy
)

// classify is pure; RFC 3463 gives the enhanced codes their meaning.
func classify(a wire.Answer) kind {
	switch {
	case errors.Is(a.Err, wire.ErrOpen):
		return local
	case errors.Is(a.Err, wire.ErrLacks) || errors.Is(a.Err, wire.ErrContent):
		return refused
	case a.Code == 0 && (a.Stage == wire.StageNone || a.Behind):
		return unsent
	case a.Code == 0:
		return lost
	case a.Positive():
		return accepted
	case a.Temporary():
		if busyHop(a) {
			return busy
		}
		return deferred
	case a.Permanent():
		if aboutHop(a) {
			return policy
		}
		return refused
	}
	return lost
}

// busyHop says whether a 4xx is about the hop: a Postfix that does not know its
// backup any more says 454 4.7.1 "Relay access denied" to every recipient.
func busyHop(a wire.Answer) bool {
	e := a.Enhanced
	if a.Code == 421 || a.Stage == wire.StageMail || strings.HasPrefix(e, "4.3.") || strings.HasPrefix(e, "4.4.") {
		return true
	}
	return a.Stage == wire.StageRcpt && (a.Code == 454 || strings.HasPrefix(e, "4.7."))
}

// aboutHop says whether a 5xx may tell more about the hop than about the
// message: everyone else's mail would get it too.
func aboutHop(a wire.Answer) bool {
	if a.Stage == wire.StageMail {
		return true
	}
	e := a.Enhanced
	switch {
	case a.Stage == wire.StageFinal:
		// The content was seen. 5.7.1 is a filter's word about it.
		return strings.HasPrefix(e, "5.3.") && e != "5.3.4" || strings.HasPrefix(e, "5.4.") || strings.HasPrefix(e, "5.5.")
	case strings.HasPrefix(e, "5.1.") || strings.HasPrefix(e, "5.2.") || strings.HasPrefix(e, "5.6.") || e == "5.3.4":
		return false
	case e != "":
		return true // 5.3 system, 5.4 routing, 5.5 protocol, 5.7 policy
	}
	return a.Code == 503 || a.Code == 554 || a.Code == 530 || strings.Contains(strings.ToLower(a.Text), "relay")
}

// outcome is what is recorded for one recipient. A refusal counts only from a
// hop that has proven itself; one that may be about the hop only when it comes
// a second time, with something accepted in between.
func outcome(k kind, proven, again bool) smtp.Outcome {
	switch k {
	case accepted:
		return smtp.Delivered
	case refused:
		if proven {
			return smtp.Refused
		}
	case policy:
		if proven && again {
			return smtp.Refused
		}
	case unsent, lost, local, deferred, busy:
	}
	return smtp.Deferred
}

// suspicion remembers refusals that were held back: message and recipient, and
// how much the hop had accepted by then. It is bounded; what it forgets is
// held back once more.
type suspicion struct {
	seen  map[suspect]uint64
	order []suspect
}

type suspect struct {
	id   string
	rcpt int
}

const maxSuspects = 8192

// again notes a refusal and says whether it is the second one, with an
// acceptance since the first.
func (s *suspicion) again(id string, rcpt int, accepted uint64) bool {
	key := suspect{id, rcpt}
	before, ok := s.seen[key]
	if ok && accepted > before {
		return true
	}
	if !ok {
		if s.seen == nil {
			s.seen = map[suspect]uint64{}
		}
		if len(s.order) == maxSuspects {
			delete(s.seen, s.order[0])
			s.order = s.order[1:]
		}
		s.order = append(s.order, key)
		s.seen[key] = accepted
	}
	return false
}
