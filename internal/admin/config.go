package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSocketPath keeps the path, and the longer name it is bound under first,
// within sun_path (108 bytes on Linux, unix(7)).
const maxSocketPath = 100

// Config is the section "admin".
type Config struct {
	Socket string `key:"socket" default:"/run/understudy/admin.sock" doc:"Unix socket of the operators' API, which the command line uses."`
	Mode   string `key:"mode" default:"0660" doc:"Permissions of the socket, octal; who may open it may operate the queue."`
	Owner  string `key:"owner" doc:"User (name or number) who shall own the socket; empty: the daemon's own user."`
	Group  string `key:"group" doc:"Group (name or number) of the socket; empty: the daemon's own group."`
	Listen string `key:"listen" doc:"Address of the web listener with /metrics, /healthz and /readyz; empty: none."`

	AllowedHosts []string `key:"allowed_hosts" doc:"Further names under which the web listener may be asked (Host header); the address of listen and loopback names always may."`
}

// Validate names every fault of c.
func (c Config) Validate() error {
	var errs []error
	switch {
	case c.Socket == "":
		errs = append(errs, errors.New("admin.socket: must not be empty"))
	case !filepath.IsAbs(c.Socket):
		errs = append(errs, fmt.Errorf("admin.socket: %q is not an absolute path", c.Socket))
	case len(c.Socket) > maxSocketPath:
		errs = append(errs, fmt.Errorf("admin.socket: path of %d bytes, at most %d are possible", len(c.Socket), maxSocketPath))
	}
	if _, err := c.mode(); err != nil {
		errs = append(errs, err)
	}
	if _, err := lookupOwner(c.Owner); err != nil {
		errs = append(errs, fmt.Errorf("admin.owner: %w", err))
	}
	if _, err := lookupGroup(c.Group); err != nil {
		errs = append(errs, fmt.Errorf("admin.group: %w", err))
	}
	if c.Listen != "" {
		if _, port, err := net.SplitHostPort(c.Listen); err != nil {
			errs = append(errs, fmt.Errorf("admin.listen: %q is not host:port", c.Listen))
		} else if n, err := strconv.ParseUint(port, 10, 16); err != nil {
			errs = append(errs, fmt.Errorf("admin.listen: port %q is not a number up to 65535", port))
		} else if n == 0 && !loopbackHost(c.Listen) {
			errs = append(errs, errors.New("admin.listen: port 0 is for tests on loopback"))
		}
	}
	for _, h := range c.AllowedHosts {
		if h == "" || strings.ContainsAny(h, "/@ \t") {
			errs = append(errs, fmt.Errorf("admin.allowed_hosts: %q is not a host name", h))
		}
	}
	return errors.Join(errs...)
}

// mode parses the socket's permissions.
func (c Config) mode() (fs.FileMode, error) {
	n, err := strconv.ParseUint(c.Mode, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("admin.mode: %q is not an octal mode like 0660", c.Mode)
	}
	if n&0o007 != 0 {
		return 0, fmt.Errorf("admin.mode: %q would let every user of this machine operate the queue", c.Mode)
	}
	return fs.FileMode(n), nil
}

// lookupOwner returns the uid of a user name or number; -1 (leave it) for "".
func lookupOwner(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return -1, fmt.Errorf("no user %q", name)
	}
	return strconv.Atoi(u.Uid)
}

// lookupGroup returns the gid of a group name or number; -1 (leave it) for "".
func lookupGroup(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("no group %q", name)
	}
	return strconv.Atoi(g.Gid)
}
