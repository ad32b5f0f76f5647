package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
	"understudy/imapsync/imapstore"
	"understudy/imapsync/wire"
)

// IMAP is an Opener whose sides are two IMAP servers.
type IMAP struct {
	// Dir holds one base an account.
	Dir string
	// Sites are the names of side A and side B; the other fields are in their order.
	Sites   [2]string
	Servers [2]wire.Config
	Auth    [2]Auth
	Sync    imapsync.Config
	Logger  *slog.Logger
}

var _ Opener = (*IMAP)(nil)

// Base is the file of an account's base.
func (o *IMAP) Base(account string) string {
	return filepath.Join(o.Dir, url.PathEscape(account)+".db")
}

// Known says whether the account has ever been synchronised from here.
func (o *IMAP) Known(account string) bool {
	_, err := os.Stat(o.Base(account))
	return err == nil
}

// Open implements Opener. It reads no secret and connects to nobody: the stores do
// both when they are used.
func (o *IMAP) Open(_ context.Context, a accounts.Account) (*Session, error) {
	base, err := o.OpenBase(a.Name)
	if err != nil {
		return nil, err
	}
	left, right := o.Store(a, imapsync.A), o.Store(a, imapsync.B)
	return &Session{
		Account: base, Sides: imapsync.Sides{A: left, B: right},
		Close: func() error { return errors.Join(left.Close(), right.Close(), base.Close()) },
	}, nil
}

// OpenBase opens an account's base alone.
func (o *IMAP) OpenBase(account string) (*imapsync.Account, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of bases: %w", err)
	}
	return imapsync.Open(o.Base(account), o.Sync, imapsync.Deps{Logger: o.Logger})
}

// Store makes one side of an account.
func (o *IMAP) Store(a accounts.Account, side imapsync.Side) *imapstore.Store {
	login := a.At[o.Sites[side]]
	log := o.Logger
	if log != nil {
		log = log.With("account", a.Name, "site", o.Sites[side])
	}
	return imapstore.New(imapstore.Options{
		Server: o.Servers[side], Log: log,
		Login: func() (wire.Login, error) { return o.Auth[side].For(login) },
	})
}
