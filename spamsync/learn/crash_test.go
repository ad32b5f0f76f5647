package learn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"understudy/internal/durable/simfs"
	"understudy/spamsync"
)

// crashed is a teacher that outlives crashes, as an engine does. It remembers how
// often it was taught each message in earnest.
type crashed struct {
	fakeTeacher
	fs    func() *simfs.FS
	early atomic.Int32 // taught after the crash, by a process that is dead
}

func (c *crashed) Teach(ctx context.Context, class spamsync.Class, digest string, raw []byte) (Outcome, error) {
	if c.fs().Crashed() {
		c.early.Add(1)
		return 0, errors.New("the machine is dead")
	}
	return c.fakeTeacher.Teach(ctx, class, digest, raw)
}

// TestPowerCut cuts the power at every operation on the disk while messages are
// added, learned, and learned anew as the other class. After the restart nothing
// that Add promised is missing, and the engine has counted every message once as
// its newest class: where the crash came between the engine and our record, the
// engine knows the digest.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	operations := 0
	for at := 1; ; at++ {
		ended := false
		synctest.Test(t, func(t *testing.T) { ended = powerCut(t, at) })
		if ended || t.Failed() {
			operations = at
			break
		}
	}
	t.Logf("power cut at each of %d operations", operations-1)
	if operations < 20 {
		t.Errorf("only %d operations: the disk was hardly used", operations)
	}
}

// powerCut runs one life with a crash at an operation, and says whether it ended
// before that.
func powerCut(t *testing.T, at int) bool {
	t.Helper()
	disk := simfs.New()
	teacher := &crashed{fs: func() *simfs.FS { return disk }}
	dir := t.TempDir()
	disk.CrashAt(at)
	promised := map[string]spamsync.Class{}
	maybe := map[string]spamsync.Class{} // Add failed: either is right
	open := func() (*Queue, func(), error) {
		q, err := Open(DefaultConfig(), Deps{Dir: dir, FS: disk, Teacher: teacher, Alarms: &fakeAlarms{}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, nil, err
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = q.Run(ctx) }()
		return q, func() { cancel(); <-ended; _ = q.Close() }, nil
	}
	if q, stop, err := open(); err == nil {
		for i := range 6 {
			class, subject := spamsync.Spam, fmt.Sprintf("m%d", i%4) // two are taught anew
			if i >= 4 {
				class = spamsync.Ham
			}
			if _, err := q.Add(t.Context(), class, strings.NewReader(mail(subject))); err == nil {
				promised[subject] = class
				delete(maybe, subject)
			} else {
				maybe[subject] = class
			}
			if i%2 == 1 {
				settle(5 * time.Second)
			}
		}
		settle(time.Hour) // what fails for a while is tried again
		stop()
	}
	cut := disk.Crashed()
	disk = disk.Restart(uint64(at))
	_, stop, err := open()
	if err != nil {
		t.Errorf("cut at operation %d: the queue does not open: %v", at, err)
		return true
	}
	settle(time.Hour)
	stop()
	// What the engine has counted: a message taught again in its own class is known
	// to it and not counted.
	teacher.mu.Lock()
	defer teacher.mu.Unlock()
	final := map[string]string{}
	counted := map[string]int{}
	for _, words := range teacher.got {
		class, subject, _ := strings.Cut(words, " ")
		if final[subject] != class {
			counted[words]++
		}
		final[subject] = class
	}
	for subject, class := range promised {
		if other, unsure := maybe[subject]; final[subject] != class.String() && (!unsure || final[subject] != other.String()) {
			t.Errorf("cut at operation %d: %s was promised as %s, and is %q", at, subject, class, final[subject])
		}
	}
	for words, n := range counted {
		if n > 1 {
			t.Errorf("cut at operation %d: %s was learned %d times", at, words, n)
		}
	}
	return !cut
}
