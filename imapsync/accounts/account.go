package accounts

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"strings"
	"unicode"
)

// MaxName is the longest name of an account, in bytes.
const MaxName = 255

// Account is one person's mailboxes at both sites.
type Account struct {
	// Name identifies the account in commands, logs and state, as
	// alice@example.com.
	Name string
	// At holds the login at each site, by the site's name.
	At map[string]Login
}

// Login is what one account says of itself at one site; what is empty comes from
// the configuration.
type Login struct {
	// User is the name at that site; never empty in a list that List returned.
	User string
	// PasswordFile holds the account's own password. Empty: the master's, or the
	// one that all accounts share.
	PasswordFile string
}

// checkName refuses what could not be a file's name, or would confuse a reader.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("an account without a name")
	case len(name) > MaxName:
		return fmt.Errorf("account %.40q...: longer than %d bytes", name, MaxName)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '/' || r == '*' }):
		return fmt.Errorf("account %q: spaces, control characters, / and * cannot be in a name", name)
	case strings.HasPrefix(name, "."), strings.HasPrefix(name, "-"):
		return fmt.Errorf("account %q: cannot begin with %q", name, name[:1])
	}
	return nil
}

// Match says whether name fits one of patterns (path.Match), without regard to case.
func Match(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(strings.ToLower(p), strings.ToLower(name)); err == nil && ok {
			return true
		}
	}
	return false
}

// sorted compares by name.
func sorted(a, b Account) int { return cmp.Compare(a.Name, b.Name) }

// Equal says that both are the same account with the same logins.
func (a Account) Equal(b Account) bool { return a.Name == b.Name && maps.Equal(a.At, b.At) }
