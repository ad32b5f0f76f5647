package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"understudy/dnsfailover"
	"understudy/dnsfailover/witness"
	"understudy/internal/peer"
)

// witnessKey and witnessFile are the files in the witness's directory.
const (
	witnessKey  = "witness.key"
	witnessFile = "register.db"
)

// witnessDir is where the witness keeps them unless --data says otherwise.
const witnessDir = "/var/lib/understudy-witness"

// newWitnessCommand is all that runs on the third machine. It has no
// configuration file: two keys and an address are all there is to say.
func newWitnessCommand(a *app) *cobra.Command {
	w := &witnessCommand{app: a}
	cmd := &cobra.Command{
		Use:   "witness",
		Short: "Hold the register on a third machine, where the DNS host takes no UPDATE",
	}
	cmd.PersistentFlags().StringVar(&w.dir, "data", witnessDir, "`directory` of the witness's key and register")
	cmd.AddCommand(w.initCommand(), w.serveCommand(), w.showCommand(), w.restoreCommand())
	return cmd
}

type witnessCommand struct {
	*app

	dir string
}

func (w *witnessCommand) path(name string) string { return filepath.Join(w.dir, name) }

func (w *witnessCommand) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make the witness's key and print its pin",
		Long: `init makes the key by which the two sites know the witness, unless there is one,
and prints its pin for failover.register.witness.pins at both sites. It makes no
register: that is the first act of a site.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := os.MkdirAll(w.dir, 0o700); err != nil {
				return fmt.Errorf("make directory: %w", err)
			}
			key, err := peer.LoadKey(w.path(witnessKey))
			if errors.Is(err, os.ErrNotExist) {
				if key, err = peer.NewKey(); err == nil {
					err = key.Save(w.path(witnessKey))
				}
			}
			if err != nil {
				return err
			}
			w.printf("%s\n", key.Pin())
			return nil
		},
	}
}

func (w *witnessCommand) serveCommand() *cobra.Command {
	var listen string
	var sites []string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answer the two sites",
		Long: `serve answers the two sites, each known by the key that "understudy peer show"
prints there, and nobody else. SIGTERM ends it. A change is on the disk before it
is answered.`,
		Example: "  understudy witness serve --listen :7027 --site a=sha256:... --site b=sha256:...",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			known, err := witness.ParseSites(sites)
			if err != nil {
				return usageError(fmt.Errorf("--site: %w", err))
			}
			return w.serve(cmd.Context(), listen, known)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", ":7027", "`address` to listen on")
	cmd.Flags().StringArrayVar(&sites, "site", nil, "a site and its key, `SITE=PIN`; once for each site, twice while a key is being replaced")
	return cmd
}

func (w *witnessCommand) serve(ctx context.Context, listen string, sites witness.Sites) (err error) {
	key, err := peer.LoadKey(w.path(witnessKey))
	if err != nil {
		return fmt.Errorf("%w; run understudy witness init", err)
	}
	store, err := witness.Open(w.path(witnessFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	log := slog.New(slog.NewTextHandler(w.Err, nil))
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if r, err := store.Read(); err == nil {
		log.Info("witness is up", "listen", ln.Addr().String(), "epoch", r.Epoch, "holder", string(r.Holder))
	} else {
		log.Warn("witness is up and has no register", "listen", ln.Addr().String(), "err", err)
	}
	return witness.NewServer(store, key, sites, witness.Deps{Logger: log}).Run(ctx, ln)
}

func (w *witnessCommand) showCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the register and what it was before",
		Long:  `show reads the file itself, so the witness must not be running.`,
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return w.show(asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (w *witnessCommand) show(asJSON bool) (err error) {
	store, err := w.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	history, err := store.History()
	if err != nil {
		return err
	}
	now, err := store.Read()
	if err != nil {
		return err
	}
	if asJSON {
		texts := make([]string, len(history))
		for i, r := range history {
			texts[i] = r.String()
		}
		return w.printJSON(map[string]any{"register": now.String(), "history": texts})
	}
	for _, r := range history {
		w.printf("%s  epoch %d, %s is active, %s, by %s\n", r.Time().Format(time.RFC3339), r.Epoch, r.Holder, r.State, r.By)
	}
	return nil
}

// open opens the file, which must be there.
func (w *witnessCommand) open() (*witness.Store, error) {
	if !witness.Exists(w.path(witnessFile)) {
		return nil, fmt.Errorf("%w: %s is not there", dnsfailover.ErrMissing, w.path(witnessFile))
	}
	return witness.Open(w.path(witnessFile))
}

func (w *witnessCommand) restoreCommand() *cobra.Command {
	var epoch uint64
	var holder string
	cmd := &cobra.Command{
		Use:   "restore --epoch N --holder SITE",
		Short: "Write a register after its file was lost",
		Long: `restore writes a register that says who is active, after the witness has lost its
file. The epoch must be higher than any that "understudy status" shows at either
site, and the holder the site that is active now: look at both sites first. Over a
register that is there it writes only a higher epoch. The witness must not be
running.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) (err error) {
			r := dnsfailover.Register{
				Epoch: epoch, Holder: dnsfailover.Site(holder), State: dnsfailover.Held, By: dnsfailover.Site(holder),
				Nonce: dnsfailover.NewNonce(), Config: "00000000", At: time.Now().Unix(),
			}
			if err := r.Validate(); err != nil {
				return usageError(fmt.Errorf("--epoch and --holder: %w", err))
			}
			store, err := witness.Open(w.path(witnessFile))
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			if err := store.Restore(r); err != nil {
				return err
			}
			w.printf("epoch %d, %s is active\n", r.Epoch, r.Holder)
			return nil
		},
	}
	cmd.Flags().Uint64Var(&epoch, "epoch", 0, "epoch `number`, higher than both sites remember")
	cmd.Flags().StringVar(&holder, "holder", "", "the `site` that is active now")
	return cmd
}
