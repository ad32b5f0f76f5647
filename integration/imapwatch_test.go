package integration

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"understudy/imapsync"
	"understudy/imapsync/imapstore"
	"understudy/imapsync/wire"
	"understudy/integration/lab"
	"understudy/integration/servers"
)

// A watching store hears of another session's message: by NOTIFY in every folder on
// Dovecot, by IDLE in INBOX where NOTIFY is taken away.
func TestStoreWatchesDovecot(t *testing.T) {
	t.Parallel()
	m := servers.DovecotIMAP(t)
	for name, row := range map[string]struct {
		disable []string
		box     string
	}{
		"NOTIFY":                  {nil, "Other"},
		"IDLE":                    {[]string{"NOTIFY"}, "INBOX"},
		"NOTIFY, TLS, compressed": {nil, "Other"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := wire.Config{Address: "imap://" + m.Addr, Disable: row.disable}
			if strings.Contains(name, "TLS") {
				conf = wire.Config{Address: "imaps://" + m.TLSAddr, Pins: []string{m.Pin}, Compress: true}
			}
			login := func() (wire.Login, error) {
				return wire.Login{User: strings.ToLower(strings.NewReplacer(" ", "", ",", "").Replace(name)), Secret: "x"}, nil
			}
			one := imapstore.New(imapstore.Options{Server: conf, Login: login})
			other := imapstore.New(imapstore.Options{Server: conf, Login: login})
			t.Cleanup(func() { _, _ = one.Close(), other.Close() })
			if _, err := one.Folders(t.Context(), []imapsync.FolderChange{{Op: imapsync.CreateFolder, Name: "Other"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := one.List(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			heard := make(chan string, 100)
			ended := make(chan error, 1)
			go func() { ended <- one.Watch(ctx, func(box string) { heard <- box }) }()
			// Until it is heard: the watch may not have begun with the first one.
			lab.Wait(t, 10*time.Second, "the watch hears", func() error {
				put(t, other, row.box)
				select {
				case box := <-heard:
					// A server may tell of other boxes as well, at the start.
					if box != row.box && box != "" {
						return fmt.Errorf("heard of %q only", box)
					}
					return nil
				case <-time.After(200 * time.Millisecond):
					return context.DeadlineExceeded
				}
			})
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			// The connection is still of use.
			if l, err := one.List(t.Context()); err != nil || len(l.Boxes) == 0 {
				t.Error(l, err)
			}
		})
	}
}

func put(t *testing.T, s *imapstore.Store, box string) {
	t.Helper()
	const text = "Subject: x\r\n\r\n"
	var msgs iter.Seq2[imapsync.Outgoing, error] = func(yield func(imapsync.Outgoing, error) bool) {
		yield(imapsync.Outgoing{Box: box, Date: time.Now(), Size: int64(len(text)), Reader: strings.NewReader(text)}, nil)
	}
	if err := s.Append(t.Context(), msgs, func(_ int, st imapsync.Stored) {
		if st.Err != nil {
			t.Error(st.Err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
