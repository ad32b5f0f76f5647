package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad looks for panics, for faults without words, and for a configuration
// that loads although a package's Validate refuses it.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(minimal), "UNDERSTUDY_LOG_LEVEL=debug")
	f.Add([]byte("a: &a [*a]\n<<: *a\n? {b: c}\n: d"), "UNDERSTUDY_SMTP=x")
	f.Add([]byte("smtp: {queue: {lifetime: 1d, domain_lifetimes: {a::b: 1h}}}\n---\nsite: b"), "UNDERSTUDY_SMTP_LISTEN=:1,:2")
	f.Add([]byte("site: !!binary YQ==\nsites: !x [a, b]\nlog: !!map {level: !!str info}"), "UNDERSTUDY_=")
	examples, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range examples {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "")
	}
	f.Fuzz(func(t *testing.T, data []byte, environ string) {
		cfg, err := Parse("f", data, Options{Environ: strings.Split(environ, "\n"), SkipFiles: true})
		var faults *Error
		switch {
		case err == nil:
			if e := cfg.SMTP.Queue.Validate(); e != nil || cfg.Site == "" || cfg.Primary == "" {
				t.Errorf("loaded with faults: %v", e)
			}
		case !errors.As(err, &faults) || len(faults.Faults) == 0:
			t.Errorf("no faults named: %v", err)
		default:
			for _, fault := range faults.Faults {
				if fault.Text == "" || strings.HasPrefix(fault.Text, "the default:") {
					t.Errorf("%q: %+v", data, fault)
				}
			}
		}
	})
}
