package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"understudy/smtp"
)

// HoldRules lists the rules.
func (s *Spool) HoldRules() []HoldRule {
	if rules := s.rules.Load(); rules != nil {
		return slices.Clone(*rules)
	}
	return nil
}

// maxRules bounds the rules: each is tried for every message.
const maxRules = 10_000

// SetHoldRules replaces the rules, durably. They apply to new messages.
func (s *Spool) SetHoldRules(ctx context.Context, rules []HoldRule) error {
	if len(rules) > maxRules {
		return fmt.Errorf("%d hold rules, at most %d", len(rules), maxRules)
	}
	rules = slices.Clone(rules)
	for i := range rules {
		if rules[i].Sender == "" && rules[i].Domain == "" {
			return errors.New("hold rule without sender and domain")
		}
		if rules[i].Since.IsZero() {
			rules[i].Since = time.Now().UTC()
		}
	}
	text, err := json.Marshal(rules)
	if err != nil {
		return fmt.Errorf("encode hold rules: %w", err)
	}
	s.rulesMu.Lock()
	defer s.rulesMu.Unlock()
	// In force before they are on disk, so that no checkpoint can miss them.
	old := s.rules.Swap(&rules)
	if _, err := s.log.Append(ctx, kindRules, text); err != nil {
		s.rules.Store(old)
		return fmt.Errorf("store hold rules: %w", err)
	}
	s.logger.Info("hold rules changed", "rules", len(rules))
	return nil
}

// repeatRules writes the rules to the log again: the segment that has them may go,
// and should no checkpoint be readable, the log must still have them.
func (s *Spool) repeatRules(ctx context.Context) error {
	s.rulesMu.Lock()
	defer s.rulesMu.Unlock()
	rules := s.rules.Load()
	if rules == nil {
		return nil
	}
	text, err := json.Marshal(*rules)
	if err != nil {
		return fmt.Errorf("encode hold rules: %w", err)
	}
	if _, err := s.log.Append(ctx, kindRules, text); err != nil {
		return fmt.Errorf("repeat hold rules: %w", err)
	}
	return nil
}

// judge gives a new message its first state.
func (s *Spool) judge(m *message, env *smtp.Envelope) {
	if v := env.Verdict; v != nil && v.Action == smtp.Quarantine {
		m.phase, m.cause, m.reason = phaseHeld, causeVerdict, "quarantined by "+v.Engine
		if v.Engine == "" {
			m.reason = "quarantined by the filter"
		}
		if v.Text != "" {
			m.reason += ": " + v.Text
		}
		return
	}
	rules := s.rules.Load()
	if rules == nil {
		return
	}
	for i := range *rules {
		r := &(*rules)[i]
		if !r.matches(env) {
			continue
		}
		m.phase, m.cause, m.reason = phaseHeld, causeRule, r.Reason
		if m.reason == "" {
			m.reason = "hold rule for sender " + r.Sender
			if r.Domain != "" {
				m.reason = "hold rule for domain " + r.Domain
			}
		}
		return
	}
}

func (r *HoldRule) matches(env *smtp.Envelope) bool {
	if r.Sender != "" && !glob(r.Sender, senderText(env.Sender)) {
		return false
	}
	if r.Domain == "" {
		return true
	}
	for i := range env.Recipients {
		if glob(r.Domain, domainOf(env.Recipients[i].Address)) {
			return true
		}
	}
	return false
}
