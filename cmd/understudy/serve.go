package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"understudy/internal/config"
	"understudy/internal/daemon"
)

// newServeCommand is the daemon.
func newServeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon in the foreground: accept mail for the configured domains, keep
it, and carry it to the next hop. SIGTERM stops it (mail that is being received
may finish), SIGHUP makes it read its configuration again.`,
		Example: "  understudy serve -c /etc/understudy/understudy.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context()) },
	}
}

// serve runs until ctx ends.
func (a *app) serve(ctx context.Context) error {
	load := func() (config.Config, error) {
		return config.Load(a.configPath, config.Options{Environ: a.Environ})
	}
	cfg, err := load()
	if err != nil {
		return configError(err)
	}
	// Before the start, which may take long: SIGHUP would end the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	log, level := daemon.NewLogger(cfg.Log, a.Err)
	d, err := daemon.New(cfg, daemon.Options{Log: log, Level: level, Load: load, Version: readVersion().Version})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	reloads := make(chan struct{})
	go func() {
		defer close(reloads)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				if err := d.Reload(); err != nil {
					log.Error("configuration not read again", "err", err)
				}
			}
		}
	}()
	err = d.Run(ctx)
	cancel()
	<-reloads
	return err
}
