package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

const minimal = `
site: b
domains: [example.com]
smtp:
  listen: [":25"]
  hostname: mx2.example.com
  deliver: {to_peer: "smtp://mx1.example.net:25"}
`

// parse loads text and returns the faults as text, one a line.
func parse(t *testing.T, text string, environ ...string) (Config, string) {
	t.Helper()
	cfg, err := Parse("f", []byte(text), Options{Environ: environ})
	if err != nil {
		return cfg, err.Error()
	}
	return cfg, ""
}

func schema(t *testing.T) *key {
	t.Helper()
	s, err := schemaOf(reflect.TypeFor[Config]())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMinimalConfig(t *testing.T) {
	t.Parallel()
	cfg, faults := parse(t, minimal)
	if faults != "" {
		t.Fatal(faults)
	}
	if cfg.Primary != "a" || cfg.SMTP.Queue.Dir != "/var/lib/understudy/spool" || cfg.SMTP.Queue.Lifetime != 720*time.Hour ||
		cfg.SMTP.Server.MaxMessageBytes != 50<<20 || cfg.SMTP.Policy.Limits.Connections != 50 || cfg.Log.Level != "info" {
		t.Errorf("%+v", cfg)
	}
}

func TestEveryKeyIsDocumentedAndHasADefault(t *testing.T) {
	t.Parallel()
	envs := map[string]string{}
	schema(t).walkAll(func(k *key) {
		if strings.Trim(k.name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Errorf("%s: a key is lower-case letters, digits and _", k.path)
		}
		if other, taken := envs[k.env()]; taken && !k.inElement() {
			t.Errorf("%s and %s have the same environment variable", k.path, other)
		}
		envs[k.env()] = k.path
		if k.kind == kindSection {
			return
		}
		if !strings.HasSuffix(k.doc, ".") || len(k.doc) < 10 {
			t.Errorf("%s: doc %q is no sentence", k.path, k.doc)
		}
		to := reflect.New(k.typ).Elem()
		if err := defaultError(k, to); err != nil {
			t.Errorf("%s: default: %v", k.path, err)
		}
		if k.def == "" && k.scalar() && k.kind != kindString && k.kind != kindText {
			t.Errorf("%s: a %s needs a default", k.path, k.typeName())
		}
		if strings.HasSuffix(k.name, "_bytes") && k.kind != kindSize {
			t.Errorf("%s: is a %s; a size is an int64 field whose name ends in Bytes", k.path, k.typeName())
		}
	})
}

// TestEveryKeyCanBeSet sets each key alone, in the file and by the environment,
// and looks that it, and only it, has the value.
func TestEveryKeyCanBeSet(t *testing.T) {
	t.Parallel()
	read := func(yaml string, environ ...string) Config {
		var cfg Config
		l, err := newLoader("f", &cfg)
		if err != nil {
			t.Fatal(err)
		}
		l.readYAML([]byte(yaml))
		l.readEnviron(environ)
		l.decode()
		if len(l.faults) > 0 {
			t.Errorf("%s %q: %v", yaml, environ, l.faults)
		}
		return cfg
	}
	nothing := read("log: {}")
	schema(t).walk(func(k *key) {
		if !k.settableByEnv() {
			return
		}
		text := map[kind]string{kindBool: "true", kindInt: "23", kindFloat: "2.5", kindDuration: "23m", kindSize: "23MiB", kindMode: "0640"}[k.kind]
		switch {
		case k.def == "true":
			text = "false"
		case len(k.enum) > 0:
			text = k.enum[0]
			if text == k.def {
				text = k.enum[1]
			}
		case text == "":
			text = "word"
		}
		yaml := text
		if k.kind == kindList {
			yaml = "[" + text + "]"
		}
		parts := strings.Split(k.path, ".")
		byFile := read(strings.Join(parts, ": {") + ": " + yaml + strings.Repeat("}", len(parts)-1))
		byEnv := read("log: {}", k.env()+"="+text)
		if diff := cmp.Diff(byFile, byEnv); diff != "" {
			t.Errorf("%s: file and environment differ: %s", k.path, diff)
		}
		now, restart := Reload(nothing, byEnv)
		if got := append(now, restart...); len(got) != 1 || got[0] != k.path {
			t.Errorf("setting %s to %q changed %q", k.path, text, got)
		}
	})
}

func TestDefaultsPassEveryValidate(t *testing.T) {
	t.Parallel()
	if _, faults := parse(t, "site: b"); faults != "" {
		t.Error(faults)
	}
}

func TestRulesBetweenPackages(t *testing.T) {
	t.Parallel()
	serve := strings.TrimPrefix(minimal, "\n") // site is line 1
	for name, c := range map[string]struct{ yaml, want string }{
		"no site":           {strings.Replace(serve, "site: b\n", "", 1), "f: site: is missing; write which of a, b this machine is"},
		"site not in sites": {strings.Replace(serve, "site: b", "site: c", 1), `f:1: site: "c" is not one of sites (a, b)`},
		"primary":           {serve + "primary: c\n", `f:7: primary: "c" is not one of sites (a, b)`},
		"one site":          {serve + "sites: [b]\n", "f:7: sites: is [b]; expected the names of two sites"},
		"same site":         {serve + "sites: [b, b]\n", "f:7: sites: is [b, b]; expected the names of two sites"},
		"site name":         {serve + "sites:\n- b\n- 'c d'\n", `f:9: sites[1]: "c d" is no name of a site; use letters, digits, - and _, at most 63`},
		"no domains":        {strings.Replace(serve, "domains: [example.com]\n", "", 1), "f: domains: is empty; smtp.listen needs the domains that mail is accepted for"},
		"domain":            {strings.Replace(serve, "[example.com]", "[example.com, user@example.com]", 1), `f:2: domains[1]: "user@example.com" is not a domain name`},
		"domain twice":      {strings.Replace(serve, "[example.com]", "[example.com, Example.COM]", 1), `f:2: domains[1]: "Example.COM" is there twice`},
		"empty part":        {strings.Replace(serve, "[example.com]", "[example..com]", 1), `f:2: domains[0]: "example..com" is not a domain name`},
		"no hostname":       {strings.Replace(serve, "  hostname: mx2.example.com\n", "", 1), "f:3: smtp.hostname: is missing; write this machine's name, as mx2.example.com"},
		"hostname":          {strings.Replace(serve, "mx2.example.com", "'mx2 '", 1), `f:5: smtp.hostname: "mx2 " is not a domain name`},
		"listen":            {strings.Replace(serve, `[":25"]`, `["25"]`, 1), `f:4: smtp.listen[0]: "25" is not an address to listen on; write :25 or 192.0.2.1:25`},
		"listen host":       {strings.Replace(serve, `[":25"]`, `["mx:25"]`, 1), `f:4: smtp.listen[0]: "mx:25": "mx" is not an IP address`},
		"listen port":       {strings.Replace(serve, `[":25"]`, `[":smtp"]`, 1), `f:4: smtp.listen[0]: ":smtp": "smtp" is not a port`},
		"listen twice":      {strings.Replace(serve, `[":25"]`, `[":25", ":25"]`, 1), `f:4: smtp.listen[1]: ":25" is there twice`},
		"no peer hop":       {strings.Replace(serve, "to_peer", "local", 1), "f:6: smtp.deliver.to_peer: is missing; site b must hand its mail to the primary, site a"},
		"no local hop":      {strings.Replace(serve, "site: b", "site: a", 1), "f:6: smtp.deliver.local: is missing; site a is the primary and must deliver locally"},
		"hop":               {strings.Replace(serve, `"smtp://mx1.example.net:25"`, `"http://x"`, 1), `f:6: smtp.deliver.to_peer: next hop "http://x": unknown scheme "http": smtp, smtps, lmtp or mx`},
		"second hop":        {strings.Replace(serve, "{to_peer", "{local: [lmtp:///run/lmtp,\nsmtp://h:0], to_peer", 1), `f:7: smtp.deliver.local[1]: next hop "smtp://h:0": port "0" is none`},
		"recipients":        {serve + "  recipients: {source: file}\n", "f:7: smtp.recipients.path: is missing; source file needs it"},
		"second source":     {serve + "  recipients:\n    sources:\n    - {source: file, path: /r}\n    - {source: file, name: other}\n", "f:10: smtp.recipients.sources[1].path: is missing; source file needs it"},
		"deliver":           {strings.Replace(serve, "{to_peer", "{window: 0, to_peer", 1), "f:6: smtp.deliver.window: 0 is not between 1 and 256"},
		"dsn":               {serve + "  dsn: {route: x}\n", `f:7: smtp.dsn.route: "x" is neither mx nor a next hop like smtp://relay.example.com:25`},
		"data_dir":          {serve + "data_dir: var\n", `f:7: data_dir: "var" is not an absolute path`},
		"certificate alone": {serve + "  tls: {certificate: /c}\n", "f:7: smtp.tls.key: is missing; a certificate needs its private key"},
		"key alone":         {serve + "  tls: {key: /proc/self/maps}\n", "f:7: smtp.tls.certificate: is missing; a private key needs its certificate"},
		"wire":              {serve + "  max_recipients: 5\n", "f:7: smtp.max_recipients: is 5, must be at least 100"},
		"smtp":              {serve + "  limits: {clients: 0}\n", "f:7: smtp.limits.clients: 0 is less than 1"},
		"queue":             {serve + "  queue:\n    lifetime: 1s\n", "f:8: smtp.queue.lifetime: 1s is too short, at least 1m0s"},
		"queue map":         {serve + "  queue:\n    domain_lifetimes:\n      example.com: 1s\n", "f:9: smtp.queue.domain_lifetimes.example.com: 1s is too short, at least 1m0s"},
		"admin":             {serve + "admin: {listen: 'x'}\n", `f:7: admin.listen: "x" is not host:port`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, got := parse(t, c.yaml)
			if !strings.HasPrefix(got, c.want) || (strings.Contains(got, "\n") && name != "key alone") {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	_, got := parse(t, `
site: c
data_dir: spool
smpt: {}
smtp:
  listen: [":25"]
  queue: {lifetime: 30, erase_after: 1s}
  max_recipients: 1
`, "UNDERSTUDY_LOG_LEVEL=loud", "UNDERSTUDY_SITES=a")
	want := `f:2: site: "c" is not one of sites (a)
f:3: data_dir: "spool" is not an absolute path
f:4: smpt: unknown key; did you mean "smtp"?
f:5: smtp.hostname: is missing; write this machine's name, as mx2.example.com
f:7: smtp.queue.erase_after: 1s is too short, at least 1m0s
f:7: smtp.queue.lifetime: a duration needs a unit (ms, s, m, h, d): "30" could be 30s or 30h
f:8: smtp.max_recipients: is 1, must be at least 100
f: domains: is empty; smtp.listen needs the domains that mail is accepted for
UNDERSTUDY_LOG_LEVEL: log.level: "loud" is not one of debug, info, warn, error
UNDERSTUDY_SITES: sites: is [a]; expected the names of two sites`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUnreadableFileIsOneFault(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":      "f: the file is empty; it needs at least site, domains and smtp",
		"- b":   `f:1: expected keys and values ("site: b"), found a list`,
		"a: [b": "f:1: not valid YAML: did not find expected ',' or ']'",
	} {
		if _, got := parse(t, text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestUnreadKeyIsNotJudgedAgain(t *testing.T) {
	t.Parallel()
	if _, got := parse(t, "site: [b]"); got != "f:1: site: expected text, found a list" {
		t.Error(got)
	}
}

func TestLoadFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "u.yaml")
	if _, err := Load(path, Options{}); err == nil || !strings.Contains(err.Error(), path+": no such file") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(filepath.Dir(path), Options{}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
	if err := os.WriteFile(path, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	if cfg, err := Load(path, Options{}); err != nil || cfg.Site != "b" {
		t.Errorf("%v %+v", err, cfg)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("# more\n"), maxFileBytes/6), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, Options{}); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("large file: %v", err)
	}
}

func TestCertificatePair(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := writePair(t, dir, "one")
	_, other := writePair(t, dir, "two")
	missing := filepath.Join(dir, "missing")
	open := filepath.Join(dir, "open.key")
	data, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(open, data, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ cert, key, want string }{
		{cert, key, ""},
		{cert, other, "f:7: smtp.tls.certificate: cannot be used with smtp.tls.key: tls: private key does not match public key"},
		{missing, key, "f:7: smtp.tls.certificate: cannot be read: open " + missing + ": no such file or directory"},
		{cert, missing, "f:7: smtp.tls.key: " + missing + " does not exist"},
		{cert, open, "f:7: smtp.tls.key: " + open + " is open to everybody (mode 0644); run chmod o= on it"},
	} {
		text := strings.TrimPrefix(minimal, "\n") + "  tls: {certificate: " + c.cert + ", key: " + c.key + "}\n"
		if _, got := parse(t, text); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		if _, err := Parse("f", []byte(text), Options{SkipFiles: true}); err != nil {
			t.Errorf("files were not skipped: %v", err)
		}
	}
}

// writePair writes a self-signed certificate and its key.
func writePair(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx2.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestReload(t *testing.T) {
	t.Parallel()
	old, faults := parse(t, minimal)
	if faults != "" {
		t.Fatal(faults)
	}
	if now, restart := Reload(old, old); now != nil || restart != nil {
		t.Errorf("unchanged: %v %v", now, restart)
	}
	changed, faults := parse(t, minimal+"  queue: {lifetime: 5d, domain_lifetimes: {}}\n  max_hops: 9\n  proxy_from: []\nlog: {level: debug}\n",
		"UNDERSTUDY_DOMAINS=example.com,example.org", "UNDERSTUDY_SMTP_LIMITS_CONNECTIONS=7", "UNDERSTUDY_DATA_DIR=/srv")
	if faults != "" {
		t.Fatal(faults)
	}
	now, restart := Reload(old, changed)
	if diff := cmp.Diff([]string{"domains", "log.level", "smtp.max_hops", "smtp.limits.connections"}, now); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"data_dir", "peer.key_file", "smtp.queue.dir", "smtp.queue.lifetime"}, restart); diff != "" {
		t.Error(diff)
	}
}

func TestExplainNamesEveryKey(t *testing.T) {
	t.Parallel()
	var text, page bytes.Buffer
	if err := Explain(&text); err != nil {
		t.Fatal(err)
	}
	if err := ExplainMarkdown(&page); err != nil {
		t.Fatal(err)
	}
	schema(t).walkAll(func(k *key) {
		if k.kind == kindSection {
			return
		}
		for _, want := range []string{"\n" + k.path + "\n", k.doc, k.typeName()} {
			if !strings.Contains("\n"+text.String(), want) {
				t.Errorf("Explain lacks %q", want)
			}
		}
		if k.settableByEnv() && !k.inElement() && !strings.Contains(text.String(), k.env()+";") {
			t.Errorf("Explain lacks %s", k.env())
		}
		if !strings.Contains(page.String(), "| `"+k.name+"` |") && !k.inElement() {
			t.Errorf("the page lacks %s", k.path)
		}
	})
}

func TestDocumentationIsCurrent(t *testing.T) {
	t.Parallel()
	const path = "../../docs/configuration.md"
	var want bytes.Buffer
	if err := ExplainMarkdown(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), want.String()); diff != "" {
		t.Errorf("%s is out of date; run: go test ./internal/config -run Documentation -update\n%s", path, diff)
	}
}

func TestExampleLoads(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range examples {
		if _, err := Load(path, Options{}); err != nil {
			t.Error(err)
		}
	}
}
