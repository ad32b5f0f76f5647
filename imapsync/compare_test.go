package imapsync_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/storetest"
)

// Every way in which two sides can differ is named, once, and nothing else is.
func TestCompareNamesEveryDifference(t *testing.T) {
	t.Parallel()
	left, right := storetest.NewServer(storetest.Features{}), storetest.NewServer(storetest.Features{FirstValid: 77})
	day := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	mail := func(id string) string { return "Message-ID: <" + id + "@x>\r\nSubject: " + id + "\r\n\r\nbody\r\n" }
	for _, s := range []*storetest.Server{left, right} {
		s.Create("Work")
		s.Append("INBOX", mail("same"), day)
		s.Append("INBOX", mail("twin"), day)
		s.Append("INBOX", mail("twin"), day, imap.FlagSeen)
	}
	compare := func() []string {
		c, err := imapsync.Compare(t.Context(), imapsync.Sides{A: left.Store(), B: right.Store()}, imapsync.DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		kinds := []string{}
		for _, d := range c.Differences {
			kinds = append(kinds, d.Folder+" "+d.Kind+" "+d.Side.String())
		}
		return kinds
	}
	if got := compare(); len(got) != 0 {
		t.Fatalf("equal sides differ: %q", got)
	}
	left.Append("INBOX", mail("only left"), day)
	right.Append("INBOX", mail("twin"), day)
	right.Flag("INBOX", 1, imapsync.NewFlags("\\Flagged"), nil)
	left.Append("Work", mail("dated"), day)
	right.Append("Work", mail("dated"), day.Add(time.Hour))
	left.Create("Left only")
	left.Subscribe("Work", true)
	right.Subscribe("Work", false)
	got := compare()
	want := []string{"INBOX flags b", "INBOX message a", "INBOX message b", "Left only folder b", "Work date b", "Work subscription b"}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("differences:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
