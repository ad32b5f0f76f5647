package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"understudy/internal/config"
)

func newCheckConfigCommand(a *app) *cobra.Command {
	var explain, asJSON bool
	cmd := &cobra.Command{
		Use:   "check-config",
		Short: "Report everything that is wrong with the configuration, or explain every key",
		Long: `check-config reads the configuration as the daemon would, environment included,
and reports every fault at once with its line. With --explain it needs no
configuration and prints every key with its type, default and meaning.`,
		Example: `  understudy -c ./understudy.yaml check-config
  understudy check-config --explain | less`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if explain {
				return config.Explain(a.Out)
			}
			cfg, err := config.Load(a.configPath, a.configOptions())
			if asJSON {
				return a.checkedJSON(err)
			}
			if err != nil {
				return configError(err)
			}
			a.printf("%s is valid: %s\n", a.configPath, summary(cfg))
			return nil
		},
	}
	cmd.Flags().BoolVar(&explain, "explain", false, "print every key with type, default and meaning")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the faults as JSON")
	cmd.MarkFlagsMutuallyExclusive("explain", "json")
	return cmd
}

func (a *app) configOptions() config.Options { return config.Options{Environ: a.Environ} }

// checkedJSON prints err's faults, or none, as JSON.
func (a *app) checkedJSON(err error) error {
	report := struct {
		File   string         `json:"file"`
		Valid  bool           `json:"valid"`
		Faults []config.Fault `json:"faults"`
	}{a.configPath, err == nil, []config.Fault{}}
	if ce, ok := errors.AsType[*config.Error](err); ok {
		report.Faults = ce.Faults
	}
	if e := a.printJSON(report); e != nil {
		return e
	}
	if err != nil {
		return configError(fmt.Errorf("%s is not valid", a.configPath))
	}
	return nil
}

// summary says in a line what the configuration makes of this machine.
func summary(cfg config.Config) string {
	role := "standby, " + cfg.Primary + " is the primary"
	if cfg.Site == cfg.Primary {
		role = "the primary"
	}
	text := fmt.Sprintf("site %s (%s)", cfg.Site, role)
	if len(cfg.SMTP.Listen) == 0 {
		return text + ", accepts no mail"
	}
	return text + fmt.Sprintf(", accepts mail for %s on %s", strings.Join(cfg.Domains, ", "), strings.Join(cfg.SMTP.Listen, ", "))
}
