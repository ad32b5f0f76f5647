package learn

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"understudy/integration/require"
	"understudy/spamsync"
	"understudy/spamsync/corpus"
	"understudy/spamsync/engine/enginetest"
)

// startSpamd starts a real SpamAssassin that learns into dir, with further words on
// its command line.
func startSpamd(t *testing.T, words ...string) (address string) {
	t.Helper()
	require.Command(t, "spamd")
	if testing.Short() {
		t.Skip("spamd takes a second to start")
	}
	path, err := require.Find("spamd")
	if err != nil {
		t.Fatal(err)
	}
	dir := enginetest.Dir(t)
	state := filepath.Join(dir, "state")
	// spamd gives up root for nobody, who writes what was learned.
	if err := os.Mkdir(state, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(state, 0o777); err != nil {
		t.Fatal(err)
	}
	conf := "required_score 5.0\nuse_bayes 1\nbayes_auto_learn 0\nbayes_path " + state + "/bayes\nbayes_file_mode 0666\nlock_method flock\n"
	if err := os.WriteFile(filepath.Join(dir, "local.cf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	pres, err := filepath.Glob("/etc/spamassassin/*.pre")
	if err != nil {
		t.Fatal(err)
	}
	for _, pre := range pres {
		raw, err := os.ReadFile(pre)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(pre)), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	address = enginetest.FreePort(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{
		"-L", "-x", "-s", "stderr", "-H", state, "-i", host, "-p", port, "-m", "1", "--siteconfigpath=" + dir, "-r", filepath.Join(dir, "pid"),
	}, words...)
	enginetest.StartProcess(t, dir, path, args...).WaitFor(t, address, time.Minute)
	return address
}

// TestRealSpamd also has a message whose last line has no end, which spamd answers
// only once it knows that nothing more comes. What a real spamd says of a message that it learns, of one that it
// knows, and of one that is taught as the other class later.
func TestRealSpamd(t *testing.T) {
	t.Parallel()
	teacher, err := NewSpamd(startSpamd(t, "--allow-tell"), "")
	if err != nil {
		t.Fatal(err)
	}
	samples := corpus.Generate(9, 4)
	var spam, ham []byte
	for _, s := range samples {
		if s.Spam {
			spam = s.Message
		} else {
			ham = s.Message
		}
	}
	spam = bytes.TrimRight(spam, "\r\n")
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	for i, c := range []struct {
		class   spamsync.Class
		message []byte
		want    Outcome
	}{
		{spamsync.Spam, spam, Learned},
		{spamsync.Ham, ham, Learned},
		{spamsync.Spam, spam, Known},
		{spamsync.Ham, ham, Known},
		{spamsync.Ham, spam, Learned}, // as the other class
		{spamsync.Ham, spam, Known},
		{spamsync.Spam, spam, Learned},
	} {
		if got, err := teacher.Teach(ctx, c.class, "", c.message); err != nil || got != c.want {
			t.Errorf("step %d, %s: %v, %v, want %v", i, c.class, got, err, c.want)
		}
	}
}
