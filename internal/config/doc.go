// Package config reads the configuration: one YAML file, over it the
// environment, under it the defaults that every package declares with its own
// Config struct.
//
// Config composes those structs; reflection over their tags (key, default, doc,
// enum, reload, secret) gives the schema, and loading, validation, Explain and
// Reload all follow the schema. viper holds the three layers and stays inside
// this package.
//
// Invariants:
//
//   - Nothing is guessed. A key nobody knows, a duration or size without a unit,
//     a value of the wrong type and a duplicate key are faults.
//   - All faults are reported at once, each with its key and its line or its
//     environment variable.
//   - A Config that was returned without error has passed every package's
//     Validate, the rules between packages, and the checks of the files it names.
//   - Every scalar key and every list of scalars can be set by the environment:
//     smtp.queue.lifetime is UNDERSTUDY_SMTP_QUEUE_LIFETIME.
//
// For example:
//
//	cfg, err := config.Load("/etc/understudy/understudy.yaml", config.Options{Environ: os.Environ()})
//	if err != nil {
//		return err // *config.Error: one fault a line
//	}
package config
