package main

import (
	"bytes"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestMailsyncScripts runs testdata/mailsync: stories of an operator with two
// mail servers that know only the oldest extensions, without a daemon.
func TestMailsyncScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/mailsync",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "mail": addMail, "holds": countMail, "empty": emptyFolder, "stopped": stopSite,
		},
		Setup: func(env *testscript.Env) error {
			sites, stops := map[string]string{}, map[string]func(){}
			for _, site := range []string{"a", "b"} {
				addr, stop, err := startIMAP(site == "b", "alice@example.com", "bob@example.com")
				if err != nil {
					return err
				}
				env.Defer(stop)
				sites[site], stops[site] = addr, stop
				env.Setenv("IMAP_"+strings.ToUpper(site), addr)
			}
			env.Values[scriptSites{}], env.Values[scriptStops{}] = sites, stops
			env.Setenv("TZ", "UTC")
			if err := os.WriteFile(env.WorkDir+"/secret", []byte(imapPassword+"\n"), 0o600); err != nil {
				return err
			}
			return os.WriteFile(env.WorkDir+"/us.yaml", fmt.Appendf(nil, `site: b
data_dir: %[1]s/data
admin: {socket: %[1]s/none.sock}
mailsync:
  sites:
    a: {address: "imap://%[2]s"}
    b: {address: "imap://%[3]s"}
  auth: {password_file: %[1]s/secret}
  accounts: {file: %[1]s/accounts}
`, env.WorkDir, sites["a"], sites["b"]), 0o600)
		},
	})
}

// scriptSites and scriptStops find a script's servers among its values.
type (
	scriptSites struct{}
	scriptStops struct{}
)

const imapPassword = "secret"

// startIMAP starts a server in memory with an INBOX for each user. later gives its
// folders another UIDVALIDITY than those of a server that is not later.
func startIMAP(later bool, users ...string) (addr string, stop func(), err error) {
	mem := imapmemserver.New()
	for _, name := range users {
		u := imapmemserver.NewUser(name, imapPassword)
		names := []string{"INBOX"}
		if later {
			names = []string{"spare", "INBOX"} // the server counts
		}
		for _, folder := range names {
			if err := u.Create(folder, nil); err != nil {
				return "", nil, err
			}
		}
		if later {
			if err := u.Delete("spare"); err != nil {
				return "", nil, err
			}
		}
		mem.AddUser(u)
	}
	srv := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return mem.NewSession(), nil, nil
		},
		InsecureAuth: true,
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapUIDPlus: {}, imap.CapMove: {}, imap.CapNamespace: {}},
		Logger:       log.New(&bytes.Buffer{}, "", 0),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's own
	if err != nil {
		return "", nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Close
	}()
	return l.Addr().String(), sync.OnceFunc(func() { _ = srv.Close(); <-done }), nil
}

// user connects as another mail program would.
func user(ts *testscript.TestScript, site, name string) *imapclient.Client {
	c, err := imapclient.DialInsecure(ts.Value(scriptSites{}).(map[string]string)[site], nil)
	ts.Check(err)
	ts.Check(c.Login(name, imapPassword).Wait())
	return c
}

// addMail is "mail SITE USER FOLDER COUNT [SUBJECT]".
func addMail(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: mail SITE USER FOLDER COUNT [SUBJECT]")
	}
	n, err := strconv.Atoi(args[3])
	ts.Check(err)
	subject := strings.Join(args[4:], " ")
	c := user(ts, args[0], args[1])
	defer c.Close()                   //nolint:errcheck // only looked
	_ = c.Create(args[2], nil).Wait() // it may be there
	for i := range n {
		text := fmt.Sprintf("From: x@example.org\r\nSubject: %s %d\r\nMessage-ID: <%s-%d@x>\r\n\r\nbody %d\r\n", subject, i, subject, i, i)
		cmd := c.Append(args[2], int64(len(text)), &imap.AppendOptions{Time: time.Date(2026, 1, 2, 3, 4, i%60, 0, time.UTC)})
		_, err := cmd.Write([]byte(text))
		ts.Check(err)
		ts.Check(cmd.Close())
		_, err = cmd.Wait()
		ts.Check(err)
	}
}

// countMail is "holds SITE USER FOLDER COUNT".
func countMail(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: holds SITE USER FOLDER COUNT")
	}
	c := user(ts, args[0], args[1])
	defer c.Close() //nolint:errcheck // only looked
	data, err := c.Status(args[2], &imap.StatusOptions{NumMessages: true}).Wait()
	ts.Check(err)
	if got := strconv.Itoa(int(*data.NumMessages)); got != args[3] {
		ts.Fatalf("%s of %s at %s holds %s messages, want %s", args[2], args[1], args[0], got, args[3])
	}
}

// emptyFolder is "empty SITE USER FOLDER".
func emptyFolder(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: empty SITE USER FOLDER")
	}
	c := user(ts, args[0], args[1])
	defer c.Close() //nolint:errcheck // only looked
	_, err := c.Select(args[2], nil).Wait()
	ts.Check(err)
	all := imap.SeqSet{}
	all.AddRange(1, 0)
	_, err = c.Store(all, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Collect()
	ts.Check(err)
	_, err = c.Expunge().Collect()
	ts.Check(err)
}

// stopSite is "stopped SITE".
func stopSite(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stopped SITE")
	}
	ts.Value(scriptStops{}).(map[string]func())[args[0]]()
}
