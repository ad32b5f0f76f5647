package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"understudy/dnsfailover"
	"understudy/internal/admin"
)

// failoverAdmin is what operators see of the failover; nil where there is none.
func (d *Daemon) failoverAdmin() admin.Failover {
	if d.failover == nil {
		return nil
	}
	return failoverOps{d.failover, d.cfg.Domains, d.cfg.Site}
}

// failoverOps implements admin.Failover.
type failoverOps struct {
	c       *dnsfailover.Controller
	domains []string
	site    string
}

// FailoverStatus implements admin.Failover.
func (f failoverOps) FailoverStatus(context.Context) (dnsfailover.Status, error) {
	return f.c.Status(), nil
}

// FailoverPlan implements admin.Failover.
func (f failoverOps) FailoverPlan(ctx context.Context, active dnsfailover.Site) (dnsfailover.PlanReport, error) {
	return f.c.Plan(ctx, active), nil
}

// FailoverHistory implements admin.Failover.
func (f failoverOps) FailoverHistory(ctx context.Context) (admin.FailoverHistory, error) {
	list, err := f.c.History(ctx)
	out := admin.FailoverHistory{Entries: list, Register: f.c.Snapshot().Register}
	if err != nil && list == nil {
		return out, err
	}
	if err != nil {
		out.Missing = err.Error()
	}
	return out, nil
}

// FailoverOrder implements admin.Failover.
func (f failoverOps) FailoverOrder(ctx context.Context, q dnsfailover.OrderQuestion) (dnsfailover.OrderResult, error) {
	forced := q.Command == dnsfailover.ForceFailover || q.Command == dnsfailover.SwitchOver && q.Force
	if forced && !slices.Contains(f.domains, q.Domain) {
		return dnsfailover.OrderResult{Refused: []string{"the typed domain is none of " + strings.Join(f.domains, ", ")}}, nil
	}
	if q.Command == dnsfailover.ForceFailover && string(q.To) != f.site {
		return dnsfailover.OrderResult{Refused: []string{fmt.Sprintf("this is site %s: force the role to %s there", f.site, q.To)}}, nil
	}
	return f.c.Order(ctx, q), nil
}

// FailoverDrill implements admin.Failover.
func (f failoverOps) FailoverDrill(ctx context.Context) (admin.FailoverDrill, error) {
	steps, err := f.c.Drill(ctx)
	out := admin.FailoverDrill{Steps: steps}
	if err != nil {
		out.Error = err.Error()
	}
	return out, nil
}

// FailoverRecords implements admin.Failover.
func (f failoverOps) FailoverRecords(ctx context.Context, adopt bool) (admin.FailoverRecords, error) {
	var out admin.FailoverRecords
	var err error
	if adopt {
		out.Adopted, err = f.c.Adopt(ctx)
	} else {
		out.Changed, err = f.c.Apply(ctx)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return out, admin.Conflict(err.Error()) // the operator asked, and must read it
	}
	return out, err
}
