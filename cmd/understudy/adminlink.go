package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
	"understudy/internal/config"
)

// The names under which the socket is given, and where it is by default.
const (
	socketVariable = "UNDERSTUDY_ADMIN_SOCKET"
	defaultSocket  = "/run/understudy/admin.sock"
)

// adminLink is a command's way to the running daemon.
type adminLink struct {
	a      *app
	socket string
}

// newAdminLink gives cmd, and all below it, the flag --socket.
func newAdminLink(a *app, cmd *cobra.Command) *adminLink {
	l := &adminLink{a: a}
	cmd.PersistentFlags().StringVar(&l.socket, "socket", "", "the daemon's admin `socket` (default: admin.socket of the configuration)")
	return l
}

// client returns a client for the daemon; it does not connect yet. The socket is
// that of --socket, of the environment, of the configuration, or the usual one,
// in this order: an operator in the socket's group need not be able to read the
// configuration.
func (l *adminLink) client(cmd *cobra.Command) (*admin.Client, error) {
	path, err := l.path(cmd)
	if err != nil {
		return nil, err
	}
	return admin.NewClient(path), nil
}

func (l *adminLink) path(cmd *cobra.Command) (string, error) {
	if l.socket != "" {
		return l.socket, nil
	}
	for _, kv := range l.a.Environ {
		if v, ok := strings.CutPrefix(kv, socketVariable+"="); ok && v != "" {
			return v, nil
		}
	}
	given := cmd.Flags().Changed("config")
	if f, err := os.Open(l.a.configPath); err == nil {
		_ = f.Close()
	} else if !given {
		return defaultSocket, nil
	}
	opts := l.a.configOptions()
	opts.SkipFiles = true // only the socket's path is wanted
	cfg, err := config.Load(l.a.configPath, opts)
	if err != nil {
		return "", configError(fmt.Errorf("%w\n(with --socket this command works without the configuration)", err))
	}
	return cfg.Admin.Socket, nil
}

// explain turns what a client returned into the error the user sees: its exit
// code, and what to do.
func (l *adminLink) explain(c *admin.Client, err error) error {
	var e *admin.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, admin.ErrUnreachable):
		advice := "is it running? see: systemctl status understudy; the path is admin.socket in the configuration, or --socket"
		if errors.Is(err, fs.ErrPermission) {
			advice = "run this as root or as a member of the socket's group (admin.group in the configuration)"
		}
		return unreachableError(fmt.Errorf("no daemon answers on %s (%s)\n%s", c.Socket(), shortCause(err), advice))
	case errors.As(err, &e) && (e.Code == admin.CodeBadRequest || e.Code == admin.CodeNoSelection):
		return usageError(errors.New(safe(e.Text)))
	case errors.As(err, &e):
		return errors.New(safe(e.Text))
	}
	return err
}

// shortCause is the innermost reason of an error.
func shortCause(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}
