package queue

import (
	"slices"
	"testing"
	"time"

	"understudy/internal/durable"
)

func TestPlans(t *testing.T) {
	t.Parallel()
	now := time.Now()
	const day = 24 * time.Hour
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixNano() }
	use := func(id uint64, sealed bool, live int, liveBytes, dead int64, keep bool) segmentUse {
		return segmentUse{
			durable.SegmentStat{ID: id, UsedBytes: 1000, Sealed: sealed}, segment{live: live, liveBytes: liveBytes, deadSince: dead, keep: keep},
		}
	}
	for name, x := range map[string]struct {
		use           segmentUse
		copied, seal  bool
		empty, worth0 bool
	}{
		"full":                      {use: use(1, true, 9, 900, 0, false)},
		"a quarter alive":           {use: use(1, true, 2, 250, ago(time.Hour), false)},
		"little alive":              {use: use(1, true, 2, 249, ago(time.Hour), false), copied: true},
		"much alive, old dead":      {use: use(1, true, 9, 900, ago(18*time.Hour), false), copied: true},
		"much alive, young dead":    {use: use(1, true, 9, 900, ago(17*time.Hour), false)},
		"nothing alive":             {use: use(1, true, 0, 0, ago(time.Hour), false), empty: true},
		"nothing alive, old dead":   {use: use(1, true, 0, 0, ago(18*time.Hour), false), empty: true, worth0: true},
		"never had a message":       {use: use(1, true, 0, 0, 0, false), empty: true},
		"unreadable bytes":          {use: use(1, true, 1, 10, ago(2*day), true)},
		"unreadable, nothing alive": {use: use(1, true, 0, 0, ago(2*day), true)},
		"newest":                    {use: use(1, false, 1, 10, ago(time.Hour), false)},
		"newest, old dead":          {use: use(1, false, 1, 10, ago(20*time.Hour), false), seal: true},
		"newest, empty":             {use: use(1, false, 0, 0, 0, false)},
	} {
		all := []segmentUse{x.use}
		copies, seal := planCompaction(all, now, day)
		if slices.Contains(copies, 1) != x.copied || seal != x.seal {
			t.Errorf("%s: copies %v, seal %v", name, copies, seal)
		}
		for _, small := range []bool{true, false} {
			checkpoint := int64(1 << 40)
			if small {
				checkpoint = 2000
			}
			empty, worth := planErasure(all, now, day, checkpoint, false)
			if slices.Contains(empty, 1) != x.empty || worth != (x.empty && small || x.worth0) {
				t.Errorf("%s with a checkpoint of %d bytes: empty %v, worth it %v", name, checkpoint, empty, worth)
			}
			if _, worth := planErasure(all, now, day, checkpoint, true); worth != x.empty {
				t.Errorf("%s without space: worth it %v", name, worth)
			}
		}
	}
}
