package main

import (
	"errors"

	"github.com/spf13/cobra"

	"understudy/internal/config"
	"understudy/spamsync/replica"
)

func newSpamRspamdConfigCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rspamd-config",
		Short: "Print what Rspamd's configuration at this site must say",
		Long: `rspamd-config prints the files for /etc/rspamd/local.d that make this site's Rspamd
read from this site's Redis and write where understudy says. It is the same at both
sites, apart from the addresses. It needs no running daemon, only the configuration.`,
		Example: "  understudy spam rspamd-config",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := config.Load(a.configPath, a.configOptions())
			if err != nil {
				return err
			}
			r := cfg.Spam.Redis
			if !r.Replicates() {
				return configError(errors.New("spam.redis: address, peer and write_listen are needed"))
			}
			_, err = replica.WriteRspamdConfig(a.Out, r.RedisConfig)
			return err
		},
	}
}
