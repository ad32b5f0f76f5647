package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"understudy/internal/config"
	"understudy/internal/daemon"
	"understudy/spamsync/parity"
)

func newSpamParityCommand(a *app) *cobra.Command {
	var (
		corpus  string
		samples int
		seed    uint64
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "parity",
		Short: "Measure whether both sites judge alike",
		Long: `parity compares what verdicts depend on (version, symbols and their scores,
thresholds, maps by content, replication of Redis, DNS, clocks), and has both
sites' engines judge the same messages without side effects. Each site is compared
with itself too, because filters are not quite deterministic; only what differs by
more than that counts. It exits with 1 where parity is broken.

The builtin filter is run here, once over each site's Redis, which nothing is
written to.

It needs no running daemon, only the configuration: spam.parity says where the
other site's Rspamd is, spam.redis where both Redis are.`,
		Example: `  understudy spam parity --samples 200
  understudy spam parity --corpus /var/vmail/example.com/joe/cur --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(a.configPath, a.configOptions())
			if err != nil {
				return err
			}
			messages, err := parityMessages(corpus, samples, seed)
			if err != nil {
				return err
			}
			c, done, err := daemon.OpenParity(cfg)
			if err != nil {
				return configError(err)
			}
			defer func() { _ = done() }()
			r, err := c.Compare(cmd.Context(), messages)
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(r)
			} else {
				err = r.WriteText(a.Out)
			}
			if err == nil && r.Broken() {
				err = fmt.Errorf("parity is broken: %s", r.Summary())
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&corpus, "corpus", "", "judge the messages in this `directory` or mbox instead of generated ones")
	f.IntVar(&samples, "samples", 100, "how many messages to judge")
	f.Uint64Var(&seed, "seed", 1, "another seed generates other messages")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func parityMessages(corpus string, samples int, seed uint64) ([]parity.Message, error) {
	if samples < 1 || samples > 10_000 {
		return nil, usageError(errors.New("--samples: must be from 1 to 10000"))
	}
	if corpus != "" {
		return parity.Files(corpus, samples)
	}
	return parity.Generated(seed, samples), nil
}
