package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"understudy/imapsync"
	"understudy/imapsync/fleet"
)

// mailsyncView shows a sweep: a bar on a terminal, lines elsewhere, JSON if wanted.
type mailsyncView struct {
	r     *mailsyncRun
	total int

	mu   sync.Mutex
	bar  *progressbar.ProgressBar
	done int
	work map[string]imapsync.Progress // accounts under way
	past imapsync.Progress            // of accounts that are done
}

// mailsyncEvent is one line of --json.
type mailsyncEvent struct {
	Event   string           `json:"event"` // "account" or "end"
	Account string           `json:"account,omitempty"`
	Result  string           `json:"result,omitempty"` // "clean", "unequal", "busy", "failed"
	Error   string           `json:"error,omitempty"`
	Report  *imapsync.Report `json:"report,omitempty"`
	Summary *fleet.Summary   `json:"summary,omitempty"`
}

func newMailsyncView(r *mailsyncRun, total int) *mailsyncView {
	v := &mailsyncView{r: r, total: total, work: map[string]imapsync.Progress{}}
	if f := terminalOf(r.a.Err); f != nil && !r.asJSON && !r.quiet {
		v.bar = progressbar.NewOptions64(-1,
			progressbar.OptionSetWriter(f),
			progressbar.OptionShowBytes(true),
			progressbar.OptionSetDescription("synchronising"),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionFullWidth())
	}
	return v
}

// log is where messages of the passes go: never through the bar.
func (v *mailsyncView) log() io.Writer { return &viewLog{v} }

type viewLog struct{ v *mailsyncView }

// Write implements io.Writer.
func (l *viewLog) Write(p []byte) (int, error) {
	l.v.mu.Lock()
	defer l.v.mu.Unlock()
	l.v.clear()
	return l.v.r.a.Err.Write(p)
}

// clear makes room for a line.
func (v *mailsyncView) clear() {
	if v.bar != nil {
		_ = v.bar.Clear() // only decoration
	}
}

func (v *mailsyncView) watcher() fleet.Watcher {
	w := fleet.Watcher{Done: v.account}
	if v.bar != nil {
		w.Progress = v.progress
	}
	return w
}

// progress moves the bar: bytes of all accounts together.
func (v *mailsyncView) progress(account string, p imapsync.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.work[account] = p
	sum := v.past
	for _, w := range v.work {
		sum.Messages += w.Messages
		sum.MessagesTotal += w.MessagesTotal
		sum.Bytes += w.Bytes
		sum.BytesTotal += w.BytesTotal
	}
	v.bar.Describe(fmt.Sprintf("%d/%d accounts, %d/%d messages", v.done, v.total, sum.Messages, sum.MessagesTotal))
	if sum.BytesTotal > 0 {
		v.bar.ChangeMax64(sum.BytesTotal)
	}
	_ = v.bar.Set64(sum.Bytes) // only decoration
}

// account shows what became of one account.
func (v *mailsyncView) account(r fleet.Result) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done++
	p := v.work[r.Account]
	delete(v.work, r.Account)
	v.past.Messages += p.MessagesTotal
	v.past.MessagesTotal += p.MessagesTotal
	v.past.Bytes += p.BytesTotal
	v.past.BytesTotal += p.BytesTotal
	v.clear()
	if v.r.asJSON {
		v.event(mailsyncEvent{Event: "account", Account: r.Account, Result: resultWord(r), Error: errorText(r.Err), Report: &r.Report})
		return
	}
	v.text(r)
}

func (v *mailsyncView) event(e mailsyncEvent) {
	line, err := compactJSON(e)
	if err == nil {
		_, _ = v.r.a.Out.Write(line) // app.run reports a failed write
	}
}

// resultWord is a result in one word.
func resultWord(r fleet.Result) string {
	switch {
	case errors.Is(r.Err, imapsync.ErrBusy):
		return "busy"
	case r.Err != nil:
		return "failed"
	case r.Clean():
		return "clean"
	}
	return "unequal"
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// text prints what somebody may want to know of an account.
func (v *mailsyncView) text(r fleet.Result) {
	a, name := v.r.a, safe(r.Account)
	switch {
	case errors.Is(r.Err, imapsync.ErrBusy):
		if v.r.verbose {
			a.printf("%s: another runner has it in hand\n", name)
		}
		return
	case r.Err != nil:
		a.warnf("%s: %s\n", name, safe(r.Err.Error()))
	}
	if !v.r.quiet && (r.Report.Changes() > 0 || v.r.verbose || r.Report.DryRun && len(r.Report.Actions) > 0) {
		a.printf("%s: %s\n", name, changesText(&r.Report))
	}
	for _, line := range r.Report.Actions {
		a.printf("  %s\n", safe(line))
	}
	for _, n := range r.Report.Notes {
		a.warnf("%s: note: %s\n", name, safe(n))
	}
	for _, c := range r.Report.Conflicts {
		if v.r.verbose {
			a.printf("%s: conflict %s in %s, side %s won\n", name, safe(c.Kind), safe(c.Folder), c.Side)
		}
	}
	for _, f := range r.Report.Faults {
		a.warnf("%s: %s\n", name, safe(f.String()))
	}
	for _, h := range r.Report.Holds {
		a.warnf("%s: held: %s\n", name, holdText(h))
	}
}

// changesText is a report in one line.
func changesText(r *imapsync.Report) string {
	var parts []string
	for i, s := range r.Sides {
		var words []string
		for _, w := range []struct {
			n    int
			text string
		}{
			{s.Appended, "new"},
			{s.Moved, "moved"},
			{s.Copied, "copied"},
			{s.FlagChanges, "flags"},
			{s.Deleted, "deleted"},
			{s.FoldersCreated, "folders created"},
			{s.FoldersRenamed, "folders renamed"},
			{s.FoldersDeleted, "folders deleted"},
			{s.Subscriptions, "subscriptions"},
		} {
			if w.n > 0 {
				words = append(words, fmt.Sprintf("%d %s", w.n, w.text))
			}
		}
		if len(words) > 0 {
			parts = append(parts, fmt.Sprintf("at %s: %s", imapsync.Side(i), strings.Join(words, ", ")))
		}
	}
	if r.Paired > 0 {
		parts = append(parts, fmt.Sprintf("%d paired by content", r.Paired))
	}
	if r.DryRun && len(r.Actions) > 0 {
		return "would do " + count(len(r.Actions), "thing")
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing to do")
	}
	return strings.Join(parts, "; ") + " in " + r.Duration.Round(time.Millisecond).String()
}

// end shows the sum.
func (v *mailsyncView) end(sum fleet.Summary) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	if v.r.asJSON {
		v.event(mailsyncEvent{Event: "end", Summary: &sum})
		return
	}
	if v.r.verbose || v.bar != nil {
		v.r.a.printf("%s: %d equal, %d changed, %d not equal, %d busy, %d failed\n",
			count(sum.Accounts, "account"), sum.Clean, sum.Changed, sum.Faulty, sum.Busy, sum.Failed)
	}
}
