package builtin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"understudy/smtp"
	"understudy/smtp/auth"
	"understudy/spamsync"
)

// judgeAuth turns the results about the sender into symbols.
func (f *Filter) judgeAuth(j *judgement) {
	r := &j.auth
	if j.outside {
		s := r.MailFrom
		j.found.add(map[auth.Result]string{
			auth.Pass: "R_SPF_ALLOW", auth.Fail: "R_SPF_FAIL", auth.SoftFail: "R_SPF_SOFTFAIL", auth.Neutral: "R_SPF_NEUTRAL",
			auth.None: "R_SPF_NA", auth.PermError: "R_SPF_PERMFAIL", auth.TempError: "R_SPF_DNSFAIL",
		}[s.Result], s.Domain+" "+s.Reason)
		if s.Result == auth.Pass {
			j.domain = s.Domain
		}
	}
	f.judgeDKIM(j)
	f.judgeARC(j)
	if !j.outside {
		return
	}
	d := r.DMARC
	trusted := j.found.has(symARCTrusted)
	switch d.Result {
	case auth.Pass:
		j.found.add("DMARC_POLICY_ALLOW", d.Domain+" by "+d.By)
		j.domain = d.With
	case auth.Fail:
		if trusted {
			break
		}
		// The sample of pct= is drawn by what both sites see alike.
		name := "DMARC_POLICY_SOFTFAIL"
		switch d.Applies(j.m.Get("Message-ID") + j.m.Get("Date")) {
		case auth.PolicyReject:
			name = "DMARC_POLICY_REJECT"
		case auth.PolicyQuarantine:
			name = "DMARC_POLICY_QUARANTINE"
		case auth.PolicyNone:
		}
		j.found.add(name, d.Domain+": "+d.Reason)
	case auth.TempError:
		j.found.add("DMARC_DNSFAIL", d.Reason)
	case auth.None, auth.SoftFail, auth.Neutral, auth.PermError, auth.Policy:
		j.found.add("DMARC_NA", d.Domain+" "+d.Reason)
	}
}

func (f *Filter) judgeDKIM(j *judgement) {
	if len(j.auth.DKIM) == 0 {
		j.found.add("R_DKIM_NA", "not signed")
	}
	for _, d := range j.auth.DKIM {
		switch d.Result {
		case auth.Pass:
			j.found.add("R_DKIM_ALLOW", d.Domain)
			if j.domain == "" {
				j.domain = d.Domain
			}
		case auth.TempError:
			j.found.add("R_DKIM_TEMPFAIL", d.Domain+" "+d.Reason)
		case auth.PermError, auth.Policy:
			j.found.add("R_DKIM_PERMFAIL", d.Domain+" "+d.Reason)
		case auth.None, auth.Fail, auth.SoftFail, auth.Neutral:
			j.found.add("R_DKIM_REJECT", d.Domain+" "+d.Reason)
		}
	}
}

func (f *Filter) judgeARC(j *judgement) {
	a := j.auth.ARC
	switch a.Result {
	case auth.Pass:
		j.found.add("ARC_ALLOW", fmt.Sprintf("%d seals, the last of %s", a.Instances, a.Sealer))
		if slices.ContainsFunc(f.config.TrustedARC, func(d string) bool { return strings.EqualFold(d, a.Sealer) }) &&
			strings.Contains(a.Results, "dmarc=pass") {
			j.found.add(symARCTrusted, a.Sealer)
		}
	case auth.TempError:
		j.found.add("ARC_DNSFAIL", a.Reason)
	case auth.Fail:
		j.found.add("ARC_REJECT", a.Reason)
	case auth.None, auth.SoftFail, auth.Neutral, auth.PermError, auth.Policy:
		j.found.add("ARC_NA", "no chain")
	}
}

// action is the pure decision by score.
func (t Thresholds) action(score float64) (reject, spam, grey bool) {
	return score >= t.Reject, score >= t.AddHeader, score >= t.Greylist
}

// decide makes the report. It asks the greylist where the score is in its band.
func (f *Filter) decide(ctx context.Context, j *judgement, remember bool) Report {
	r := Report{Auth: j.auth, Bayes: j.bayes, Digest: spamsync.Digest(j.m)}
	list, score := j.found.sorted()
	if j.found.has(symGTUBE) {
		score = max(score, f.config.Thresholds.Reject)
	}
	reject, spam, grey := f.config.Thresholds.action(score)
	v := smtp.Verdict{Engine: Engine, Score: score, Required: f.config.Thresholds.Reject, Spam: spam && !reject}
	switch {
	case reject:
		v.Action, v.Code, v.Enhanced, v.Text = smtp.Reject, 554, "5.7.1", "Message refused as spam"
	case j.rate.Over:
		v.Action, v.Code, v.Enhanced, v.Text = smtp.Defer, 451, "4.7.1", "Too many messages, try again later"
	case grey && j.outside && f.config.Greylist.Enabled && f.deps.Greylist != nil:
		if a := f.askGreylist(ctx, j, remember); a.Decision != spamsync.GreyPass {
			why := fmt.Sprintf("let in after %v", a.Wait)
			if a.Local {
				why += "; remembered at this site only"
			}
			j.found.add(symGreylist, why)
			list, _ = j.found.sorted()
			v.Action, v.Code, v.Enhanced, v.Text = smtp.Defer, 451, "4.7.1", "Try again later"
		}
	}
	if v.Action == smtp.Defer || v.Action == smtp.Reject {
		v.Spam = false
	}
	for _, x := range list {
		v.Symbols = append(v.Symbols, smtp.Symbol{Name: x.Name, Score: x.Score})
	}
	v.Header = f.header(j)
	r.Verdict, r.Findings = v, list
	return r
}

func (f *Filter) askGreylist(ctx context.Context, j *judgement, remember bool) spamsync.GreyAnswer {
	q := spamsync.GreyQuestion{Domain: j.domain, Addr: j.env.Client.Addr.Addr(), Sender: j.env.Sender}
	for _, to := range j.env.Recipients {
		q.Recipients = append(q.Recipients, to.Address)
	}
	if remember {
		return f.deps.Greylist.Check(ctx, q, j.now)
	}
	return f.deps.Greylist.Peek(ctx, q, j.now)
}

// header is what is put in front of the message.
func (f *Filter) header(j *judgement) string {
	if f.resolver == nil || f.deps.Hostname == "" {
		return ""
	}
	out := smtp.FormatHeader("Authentication-Results", j.auth.Header(f.deps.Hostname))
	if f.config.ReceivedSPF && j.outside {
		s := auth.Sender{Addr: j.env.Client.Addr.Addr(), HELO: j.env.Client.HELO, MailFrom: j.env.Sender}
		out = smtp.FormatHeader("Received-SPF", j.auth.MailFrom.ReceivedSPF(s, f.deps.Hostname)) + out
	}
	return out
}

// remember counts what the next judgements depend on. It loses no message when
// that fails.
func (f *Filter) remember(ctx context.Context, j *judgement, r Report) {
	if !j.outside {
		return
	}
	failed := func(what string, err error) {
		if err != nil {
			f.metrics.stateErrors.Inc()
			f.logger.Warn("spam state takes no record", "record", what, "err", err)
		}
	}
	if !j.rate.Over {
		failed("rate", f.ratelimit.Count(ctx, j.env.Client.Addr.Addr(), j.now))
	}
	if !f.config.Reputation.Enabled || j.found.has(symGTUBE) {
		return
	}
	class := spamsync.Unlearned
	switch t := f.config.Thresholds; {
	case r.Verdict.Action == smtp.Defer:
	case r.Verdict.Score >= t.AddHeader:
		class = spamsync.Spam
	case r.Verdict.Score < t.Greylist:
		class = spamsync.Ham
	}
	if class != spamsync.Unlearned {
		failed("reputation", f.reputation.Note(ctx, j.now, class, f.reputationKeys(j)...))
	}
}

func actionName(v smtp.Verdict) string {
	switch v.Action {
	case smtp.Quarantine:
		return "quarantine"
	case smtp.Defer:
		return "defer"
	case smtp.Reject:
		return "reject"
	case smtp.Accept:
	}
	if v.Spam {
		return "add_header"
	}
	return "accept"
}
