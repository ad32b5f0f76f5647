package fleet

import (
	"errors"
	"fmt"

	"understudy/imapsync/accounts"
	"understudy/imapsync/wire"
	"understudy/internal/ask"
)

// Auth is how this program logs in for accounts at one site.
type Auth struct {
	Mechanism string `key:"mechanism" default:"plain" enum:"plain,login,oauthbearer,xoauth2" doc:"SASL mechanism: plain, login, oauthbearer or xoauth2; the last two take a token from password_file."`
	Master    string `key:"master" doc:"Master user that may log in for every account; empty: each account logs in for itself."`
	// Separator joins account and master in one name.
	Separator    string `key:"master_separator" doc:"Dovecot's auth_master_user_separator, as *: the master logs in as account*master. Empty: the account is PLAIN's authorisation identity (RFC 4616)."`
	PasswordFile string `key:"password_file" secret:"true" doc:"File with the master's password, or with one that all accounts share; an account's own file goes before it."`
}

// Validate returns all faults at once, each prefixed with its key.
func (a Auth) Validate() error {
	var faults []error
	if a.Separator != "" && a.Master == "" {
		faults = append(faults, errors.New("master: is missing beside master_separator"))
	}
	if a.Master != "" && a.Separator == "" && a.Mechanism != "plain" {
		faults = append(faults, fmt.Errorf("mechanism: %s has no authorisation identity; set master_separator, or use plain", a.Mechanism))
	}
	return errors.Join(faults...)
}

// For is how account login logs in. The secret is read each time, so that a token
// or a password that was changed is used from the next login on.
func (a Auth) For(login accounts.Login) (wire.Login, error) {
	out := wire.Login{Mechanism: a.Mechanism, User: login.User, Master: a.Master, Separator: a.Separator}
	file := a.PasswordFile
	if login.PasswordFile != "" { // an account with a password logs in for itself
		file, out.Master, out.Separator = login.PasswordFile, "", ""
	}
	if file == "" {
		return out, fmt.Errorf("no password for %s: neither mailsync.auth.password_file nor one of its own", login.User)
	}
	if out.Master != "" && out.Separator != "" {
		out.User, out.Master, out.Separator = out.User+out.Separator+out.Master, "", ""
	}
	var err error
	out.Secret, err = ask.Secret(file)
	return out, err
}
