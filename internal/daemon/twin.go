package daemon

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"time"

	"understudy/internal/config"
	"understudy/internal/hooks"
	"understudy/internal/peer"
	"understudy/internal/twin"
)

// methodTwin asks the other site for its marks: the salt in, the marks out.
const methodTwin = "twin.marks"

// compareLimit bounds one comparison, of which both sites do a half.
const compareLimit = 30 * time.Second

// shownTwins is how many differences a line of the status names.
const shownTwins = 5

// twins compares what both machines should have alike.
type twins struct {
	checker *twin.Checker
	call    func(ctx context.Context, method string, in, out any) error
	alarms  interface {
		Raise(key, text string)
		Clear(key string)
	}

	mu    sync.Mutex
	found []twin.Difference
	fault string // why the last comparison did not take place
	at    time.Time
}

// buildTwin makes the comparison, and answers the other site's.
func (d *Daemon) buildTwin(cfg config.Config) error {
	socket := cfg.Failover.HooksSocket
	c, err := twin.New(cfg.Failover.Twin, func(ctx context.Context, name string) (string, error) {
		res, err := hooks.Call(ctx, socket, hooks.Request{Name: name, Timeout: cfg.Failover.Decide.Hooks.Timeout})
		if err != nil {
			return "", err
		}
		if res.ExitCode != 0 {
			return "", fmt.Errorf("exit code %d", res.ExitCode)
		}
		return res.Output, nil
	})
	if err != nil {
		return fmt.Errorf("twin: %w", err)
	}
	d.twins = &twins{checker: c, call: d.link.Call, alarms: d.alarms}
	peer.HandleJSON(d.link, methodTwin, d.twins.answer)
	return nil
}

// answer makes this site's marks for the other one.
func (t *twins) answer(ctx context.Context, salt string) (map[string]twin.Mark, error) {
	return t.checker.Marks(ctx, salt), nil
}

// compare asks the other site and notes what differs.
func (t *twins) compare(ctx context.Context) ([]twin.Difference, error) {
	ctx, cancel := context.WithTimeout(ctx, compareLimit)
	defer cancel()
	salt := rand.Text()
	var theirs map[string]twin.Mark
	theirErr := make(chan error, 1)
	go func() { theirErr <- t.call(ctx, methodTwin, salt, &theirs) }()
	own := t.checker.Marks(ctx, salt)
	err := <-theirErr
	var found []twin.Difference
	if err == nil {
		found = twin.Compare(own, theirs)
	} else {
		err = fmt.Errorf("ask the other site: %w", err)
	}
	t.note(found, err)
	return found, err
}

func (t *twins) note(found []twin.Difference, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.fault = err.Error() // what was found before is still what is known
		return
	}
	t.found, t.fault, t.at = found, "", time.Now()
	if text := forbidding(found); len(text) > 0 {
		t.alarms.Raise("twin", "the sites are not alike: "+few(text))
	} else {
		t.alarms.Clear("twin")
	}
}

func forbidding(found []twin.Difference) []string {
	var out []string
	for _, f := range found {
		if f.Forbids {
			out = append(out, f.String())
		}
	}
	return out
}

func few(list []string) string {
	if more := len(list) - shownTwins; more > 0 {
		return fmt.Sprintf("%s; and %d more", strings.Join(list[:shownTwins], "; "), more)
	}
	return strings.Join(list, "; ")
}

// gates are the reasons against a switchover, from a comparison made now. That
// there was none counts only where something was asked for by name.
func (t *twins) gates(ctx context.Context) []string {
	found, err := t.compare(ctx)
	if err != nil {
		if t.checker.Asks() {
			return []string{"the sites' files are not compared: " + err.Error()}
		}
		return nil
	}
	return forbidding(found)
}

// run compares from time to time.
func (t *twins) run(interval time.Duration, up func() bool) func(context.Context) error {
	return func(ctx context.Context) error {
		next := time.NewTimer(min(interval, 10*time.Second)) // the link comes up first
		defer next.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-next.C:
			}
			wait := interval
			if !up() {
				wait = min(interval, 10*time.Second)
			} else if _, err := t.compare(ctx); err != nil {
				wait = min(interval, time.Minute) // it is in the status
			}
			next.Reset(wait)
		}
	}
}

// line is what the status says.
func (t *twins) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var bad, unknown []string
	for _, f := range t.found {
		if f.Unknown {
			unknown = append(unknown, f.String())
		} else {
			bad = append(bad, f.String())
		}
	}
	text := "not compared yet"
	switch {
	case len(bad) > 0:
		text = "DIFFERENT: " + few(bad)
	case !t.at.IsZero():
		text = "the sites are alike"
	}
	if len(unknown) > 0 {
		text += "; " + few(unknown)
	}
	if !t.at.IsZero() {
		text += " (" + t.at.UTC().Format(time.RFC3339) + ")"
	}
	if t.fault != "" {
		text += "; not compared now: " + t.fault
	}
	return text
}
