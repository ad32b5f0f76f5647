package daemon

import (
	"log/slog"
	"testing"

	"understudy/dnsfailover"
	"understudy/internal/config"
)

// TestReloadMode: a mode is taken over alone, not as half of a bigger change.
func TestReloadMode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		mode  dnsfailover.Mode
		later []string
		want  dnsfailover.Mode
	}{
		{"alone", dnsfailover.Automatic, nil, dnsfailover.Automatic},
		{"with a key of another part", dnsfailover.Automatic, []string{"admin.socket"}, dnsfailover.Automatic},
		{"with probes", dnsfailover.Automatic, []string{"failover.probes"}, dnsfailover.Manual},
		{"with hops", dnsfailover.Automatic, []string{"smtp.deliver.local"}, dnsfailover.Manual},
		{"to observe", dnsfailover.Observe, nil, dnsfailover.Manual},
		{"without the section", "", nil, dnsfailover.Manual},
	} {
		d := &Daemon{log: slog.New(slog.DiscardHandler), failover: &dnsfailover.Controller{}}
		d.cfg.Failover.Decide.Mode = dnsfailover.Manual
		var changed config.Config
		changed.Failover.Decide.Mode = c.mode
		d.reloadMode(changed, c.later)
		if got := d.cfg.Failover.Decide.Mode; got != c.want {
			t.Errorf("%s: mode %q, want %q", c.name, got, c.want)
		}
	}
}
