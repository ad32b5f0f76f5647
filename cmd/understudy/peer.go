package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"understudy/internal/config"
	"understudy/internal/peer"
)

func newPeerCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peer",
		Short: "Make this site's key, and show what the other site must know",
		Long: `Two sites are paired by their keys. At each of them run "understudy peer init"
once, carry what it prints to the other one by a way you trust, and write it into
the other one's configuration. Nothing expires, and no authority is asked.`,
	}
	cmd.AddCommand(newPeerInitCommand(a), newPeerShowCommand(a))
	return cmd
}

// pairing is what peer init and peer show print.
type pairing struct {
	Site    string `json:"site"`
	Address string `json:"address"`
	Pin     string `json:"pin"`
	Pairing string `json:"pairing"`
	KeyFile string `json:"key_file"`
	Created bool   `json:"created"`
}

func newPeerInitCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make this site's key, once",
		Long: `init makes this site's key, if it has none, and shows it as peer show does. It
never replaces a key: the other site would not know the new one. To replace a key,
make the new one under another name (peer.key_file), add its pin at the other site
beside the old one, restart here, and then remove the old pin there.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.showPairing(true, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newPeerShowCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show what the other site must know of this one",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return a.showPairing(false, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) showPairing(create, asJSON bool) error {
	opts := a.configOptions()
	opts.SkipFiles = true // the certificate may not be there yet
	cfg, err := config.Load(a.configPath, opts)
	if err != nil {
		return configError(err)
	}
	path := cfg.Link.KeyFile
	key, err := peer.LoadKey(path)
	created := false
	if errors.Is(err, fs.ErrNotExist) && create {
		key, err = newPeerKey(path)
		created = err == nil
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("this site has no key yet (%s); run understudy peer init", path)
	case err != nil:
		return err
	}
	p := cfg.Pairing(key)
	out := pairing{Site: p.Site, Address: p.Address, Pin: p.Pin.String(), Pairing: p.String(), KeyFile: path, Created: created}
	if asJSON {
		return a.printJSON(out)
	}
	if created {
		a.field("New key", path)
	}
	a.field("Site", out.Site)
	a.field("Pairing", out.Pairing)
	a.printf("\nIn the configuration of the other site (site %s):\n\npeer:\n", cfg.Peer())
	if out.Address != "" {
		a.printf("  address: %q\n", out.Address)
	} else {
		a.printf("  listen: \":7025\"     # this site listens nowhere, so the other one must\n")
	}
	a.printf("  pins: [%q]\n", out.Pin)
	return nil
}

// newPeerKey makes a key where the daemon, too, can read it: whoever owns the
// directory owns the key.
func newPeerKey(path string) (*peer.Key, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make directory of the key: %w", err)
	}
	key, err := peer.NewKey()
	if err != nil {
		return nil, err
	}
	if err := key.Save(path); err != nil {
		return nil, err
	}
	return key, ownLike(dir, path)
}
