package imapsync_test

import (
	"testing"
	"time"

	"understudy/imapsync"
)

// restored is a world whose side A went back to a backup, and got so much mail since
// that no folder shows it.
func restored(t *testing.T) (w *world, want int) {
	t.Helper()
	w = synced(t, 10)
	backup := w.a.Backup()
	w.fill(w.a, "INBOX", 12)
	w.fill(w.b, "Archive", 7)
	w.clean()
	w.a.Restore(backup)
	w.fill(w.a, "INBOX", 30)
	w.fill(w.a, "Archive", 30)
	return w, 30 + 19 + 60
}

// That a side was restored is not forgotten when the process dies in the pass that
// noticed it.
func TestDeathAfterRestore(t *testing.T) {
	t.Parallel()
	for k := 0; ; k++ {
		w, want := restored(t)
		p := &power{left: k}
		h := &history{world: w, power: p}
		_, err := h.tryPass()
		p.restore()
		w.a.Cut, w.b.Cut = nil, nil
		w.clean()
		w.want(want)
		if err == nil {
			if k < 10 {
				t.Fatalf("only %d steps", k)
			}
			return
		}
		if t.Failed() {
			return
		}
	}
}

// Nor in the folders that this pass was not about.
func TestRestoreAndFolders(t *testing.T) {
	t.Parallel()
	w, want := restored(t)
	if _, err := w.try(imapsync.PassOptions{Folders: []string{"INBOX"}}); err != nil {
		t.Fatal(err)
	}
	w.clock.add(time.Hour)
	w.clean()
	w.want(want)
}
