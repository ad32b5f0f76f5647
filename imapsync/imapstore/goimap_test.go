package imapstore_test

import (
	"log"
	"net"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"

	"understudy/imapsync"
	"understudy/imapsync/imapstore"
	"understudy/imapsync/storetest"
	"understudy/imapsync/wire"
)

// memory starts go-imap's server, which knows nothing of CONDSTORE, QRESYNC and
// MULTIAPPEND: the fallbacks carry it.
func memory(t *testing.T, caps imap.CapSet) wire.Config {
	t.Helper()
	user := imapmemserver.NewUser("eva", "s")
	if err := user.Create("INBOX", nil); err != nil {
		t.Fatal(err)
	}
	mem := imapmemserver.New()
	mem.AddUser(user)
	srv := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return mem.NewSession(), nil, nil
		},
		Caps: caps, InsecureAuth: true, Logger: log.New(t.Output(), "", 0),
	})
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Close
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return wire.Config{Address: "imap://" + l.Addr().String()}
}

func store(conf wire.Config) *imapstore.Store {
	return imapstore.New(imapstore.Options{Server: conf, Login: func() (wire.Login, error) { return wire.Login{User: "eva", Secret: "s"}, nil }})
}

func TestStoreOnGoIMAP(t *testing.T) {
	t.Parallel()
	for name, caps := range map[string]imap.CapSet{
		"IMAP4rev1": {imap.CapIMAP4rev1: {}},
		"IMAP4rev2": {imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) imapsync.Store { t.Helper(); return store(memory(t, caps)) },
				"a source that fails", // it stores half a literal when the connection ends in it
				"folders",             // its RENAME leaves the children behind
				"names",               // it does not understand "&-" (RFC 3501, section 5.1.3)
			)
		})
	}
}
