package integration

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"understudy/imapsync"
	"understudy/imapsync/imapstore"
	"understudy/imapsync/storetest"
	"understudy/imapsync/wire"
	"understudy/integration/servers"
)

// An account of a real server, made by its first login.
var accountNumber atomic.Int64

func openStore(t *testing.T, m *servers.Mailbox, conf wire.Config) *imapstore.Store {
	t.Helper()
	user := fmt.Sprintf("u%d", accountNumber.Add(1))
	if conf.Address == "" {
		conf.Address = "imap://" + m.Addr
	}
	return imapstore.New(imapstore.Options{
		Server: conf,
		Login:  func() (wire.Login, error) { return wire.Login{User: user, Secret: "any"}, nil },
		Log:    slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
}

// What is taken away from a server that has everything, so that each fallback is used
// against the real thing.
var lacks = map[string][]string{
	"everything":     nil,
	"no QRESYNC":     {"QRESYNC"},
	"no CONDSTORE":   {"CONDSTORE"},
	"no MULTIAPPEND": {"MULTIAPPEND"},
	"no LITERAL+":    {"LITERAL-"},
	"no MOVE":        {"MOVE"},
	"no UIDPLUS":     {"UIDPLUS", "MOVE"},
	"nothing": {
		"CONDSTORE", "MULTIAPPEND", "LITERAL-", "MOVE", "UIDPLUS", "LIST-STATUS", "LIST-EXTENDED", "ESEARCH", "ENABLE", "NAMESPACE", "ID",
		"UNSELECT", "SPECIAL-USE", "OBJECTID",
	},
}

func TestStoreOnDovecot(t *testing.T) {
	t.Parallel()
	m := servers.DovecotIMAP(t)
	for name, disable := range lacks {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) imapsync.Store {
				t.Helper()
				return openStore(t, m, wire.Config{Disable: disable})
			})
		})
	}
	t.Run("TLS, pinned and compressed", func(t *testing.T) {
		conf := wire.Config{Address: "imaps://" + m.TLSAddr, Pins: []string{m.Pin}, Compress: true}
		storetest.Run(t, func(t *testing.T) imapsync.Store {
			t.Helper()
			return openStore(t, m, conf)
		})
	})
}

func TestStoreOnCyrus(t *testing.T) {
	t.Parallel()
	m := servers.Cyrus(t)
	for _, name := range []string{"everything", "no QRESYNC", "nothing"} {
		disable := lacks[name]
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) imapsync.Store {
				t.Helper()
				return openStore(t, m, wire.Config{Disable: disable})
			})
		})
	}
	t.Run("compressed", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) imapsync.Store {
			t.Helper()
			return openStore(t, m, wire.Config{Compress: true})
		})
	})
}
