package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sample has a key of every kind.
type sample struct {
	Name    string        `key:"name" doc:"A name."`
	On      bool          `key:"on" default:"true" doc:"A switch."`
	Count   int           `key:"count" default:"3" doc:"A count." reload:"true"`
	Port    uint16        `key:"port" default:"25" doc:"A port."`
	Ratio   float64       `key:"ratio" default:"0.5" doc:"A ratio."`
	Wait    time.Duration `key:"wait" default:"90s" doc:"A wait."`
	MaxBody int64         `key:"max_body" default:"7" doc:"A plain number."`
	Bytes   int64         `key:"size" default:"1MiB" doc:"A size."`
	Mode    fs.FileMode   `key:"mode" default:"0660" doc:"A mode."`
	Addr    netip.Addr    `key:"addr" default:"127.0.0.1" doc:"Parses itself."`
	Color   string        `key:"color" default:"red" enum:"red,green,blue" doc:"A choice."`
	Nets    []string      `key:"nets" default:"127.0.0.0/8, ::1/128" doc:"A list."`
	Where   []string      `key:"where" single:"true" doc:"One or several."`
	Deep    struct {
		Secret string `key:"secret_file" doc:"A secret."`
		Again  struct {
			Key string `key:"key" default:"x" doc:"Deep."`
		} `key:"again"`
		SampleInlined
	} `key:"deep"`
	Lives map[string]time.Duration `key:"lives" doc:"By domain."`
	Hosts map[string]sampleHost    `key:"hosts" doc:"By name."`
	Hops  []sampleHost             `key:"hops" doc:"In order."`
}

// SampleInlined is embedded.
type SampleInlined struct {
	Inner string `key:"inner" default:"in" doc:"Inlined."`
}

type sampleHost struct {
	Address string        `key:"address" doc:"Where."`
	Timeout time.Duration `key:"timeout" default:"5s" doc:"How long."`
}

// Validate finds faults of the key inner.
func (s SampleInlined) Validate() error {
	if s.Inner == "bad" {
		return errors.Join(errors.New("inner: is bad"), errors.New("nothing: to see"))
	}
	return nil
}

// loadSample reads text over sample's defaults and returns the faults as lines.
func loadSample(t *testing.T, text string, environ ...string) (sample, []string) {
	t.Helper()
	var s sample
	l, err := newLoader("f", &s)
	if err != nil {
		t.Fatal(err)
	}
	l.readYAML([]byte(text))
	l.readEnviron(environ)
	if !l.unreadable {
		l.decode()
		l.validatePackages(l.schema, l.target, l.faultAt)
		l.checkSecrets(l.faultAt)
	}
	var lines []string
	for _, f := range sortFaults(l.faults) {
		lines = append(lines, f.String())
	}
	return s, lines
}

func TestDefaultsOfEveryKind(t *testing.T) {
	t.Parallel()
	got, faults := loadSample(t, "name: n")
	want := sample{
		Name: "n", On: true, Count: 3, Port: 25, Ratio: 0.5, Wait: 90 * time.Second, MaxBody: 7, Bytes: 1 << 20,
		Mode: 0o660, Addr: netip.MustParseAddr("127.0.0.1"), Color: "red", Nets: []string{"127.0.0.0/8", "::1/128"},
	}
	want.Deep.Again.Key, want.Deep.Inner = "x", "in"
	if faults != nil {
		t.Fatal(faults)
	}
	if diff := cmp.Diff(want, got, cmpNetip()); diff != "" {
		t.Error(diff)
	}
}

func cmpNetip() cmp.Option {
	return cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
}

func TestValuesOfEveryKind(t *testing.T) {
	t.Parallel()
	got, faults := loadSample(t, `
name: 007
on: false
count: -4
port: 65535
ratio: 1e3
wait: 30d1h
max_body: 12
size: 1.5GiB
mode: 0600
addr: "2001:db8::1"
color: blue
nets: [10.0.0.0/8, "2001:db8::/32"]
where: a, b
deep: {again: {key: "y: z"}, inner: other}
lives: {Example.COM: 24h, "2001:db8::/32": 1h, a.b.c: 5m}
hosts: {mx1.Example.com: {address: "x:1"}}
hops:
  - address: "a:1"
  - {address: "b:2", timeout: 1m}
`)
	if faults != nil {
		t.Fatal(faults)
	}
	want := sample{
		Name: "007", Count: -4, Port: 65535, Ratio: 1000, Wait: 721 * time.Hour, MaxBody: 12, Bytes: 3 << 29,
		Mode: 0o600, Addr: netip.MustParseAddr("2001:db8::1"), Color: "blue", Nets: []string{"10.0.0.0/8", "2001:db8::/32"},
		Where: []string{"a, b"},
		Lives: map[string]time.Duration{"Example.COM": 24 * time.Hour, "2001:db8::/32": time.Hour, "a.b.c": 5 * time.Minute},
		Hosts: map[string]sampleHost{"mx1.Example.com": {Address: "x:1", Timeout: 5 * time.Second}},
		Hops:  []sampleHost{{Address: "a:1", Timeout: 5 * time.Second}, {Address: "b:2", Timeout: time.Minute}},
	}
	want.Deep.Again.Key, want.Deep.Inner = "y: z", "other"
	if diff := cmp.Diff(want, got, cmpNetip()); diff != "" {
		t.Error(diff)
	}
}

func TestFaultsOfValues(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ yaml, want string }{
		"duration without unit":    {"wait: 10", `f:1: wait: a duration needs a unit (ms, s, m, h, d): "10" could be 10s or 10h`},
		"zero without unit":        {"wait: 0", `f:1: wait: a duration needs a unit (ms, s, m, h, d): "0" could be 0s or 0h`},
		"quoted number":            {`wait: "1.5"`, `f:1: wait: a duration needs a unit (ms, s, m, h, d): "1.5" could be 1.5s or 1.5h`},
		"duration unit":            {"wait: 3 weeks", `f:1: wait: "3 weeks" is not a duration; write a number and a unit (ms, s, m, h, d), as 90s, 12h or 30d`},
		"days and a bare number":   {"wait: 3d12", `f:1: wait: "3d12" is not a duration; write a number and a unit (ms, s, m, h, d), as 90s, 12h or 30d`},
		"days and a bare zero":     {"wait: 3d0", `f:1: wait: "3d0" is not a duration; write a number and a unit (ms, s, m, h, d), as 90s, 12h or 30d`},
		"negative duration":        {"wait: -1s", `f:1: wait: "-1s" is negative`},
		"endless duration":         {"wait: 9999999d", `f:1: wait: "9999999d" is too long a duration`},
		"duration over the end":    {"wait: 106751d99h", `f:1: wait: "106751d99h" is too long a duration`},
		"size without unit":        {"size: 1024", `f:1: size: a size needs a unit (B, KiB, MiB, GiB, KB, MB, GB): "1024" could be 1024B or 1024MiB`},
		"size unit":                {"size: 5 M", `f:1: size: "5 M" is not a size; write a number and a unit (B, KiB, MiB, GiB, KB, MB, GB), as 50MiB`},
		"negative size":            {"size: -5MiB", `f:1: size: "-5MiB" is negative`},
		"large size":               {"size: 99999999999GiB", `f:1: size: "99999999999GiB" is too large`},
		"large broken size":        {"size: 99999999999.5GiB", `f:1: size: "99999999999.5GiB" is too large`},
		"bool":                     {"on: yes", `f:1: on: "yes" is neither true nor false`},
		"int":                      {"count: many", `f:1: count: "many" is not a whole number`},
		"int range":                {"port: 65536", `f:1: port: 65536 is out of range`},
		"float":                    {"ratio: .nan", `f:1: ratio: ".nan" is not a number`},
		"mode":                     {"mode: rw-rw----", `f:1: mode: "rw-rw----" is not a file mode; write it in octal, as 0660`},
		"mode range":               {"mode: 07777", `f:1: mode: "07777" is not a file mode; write it in octal, as 0660`},
		"enum":                     {"color: bleu", `f:1: color: "bleu" is not one of red, green, blue; did you mean "blue"?`},
		"enum far off":             {"color: magenta", `f:1: color: "magenta" is not one of red, green, blue`},
		"list for text":            {"name: [a]", `f:1: name: expected text, found a list`},
		"section for duration":     {"\nwait:\n  s: 3", `f:3: wait: expected a duration, found a section`},
		"text for list":            {"nets: 10.0.0.0/8", `f:1: nets: expected a list, found "10.0.0.0/8"; write ["10.0.0.0/8"]`},
		"section for one or list":  {"where: {a: b}", `f:1: where: expected text or a list of it, found a section`},
		"section for list":         {"nets: {a: b}", `f:1: nets: expected a list, found a section`},
		"list in list":             {"nets: [[a]]", `f:1: nets[0]: expected text, found a list`},
		"nothing in list":          {"nets:\n- a\n-\n", `f:3: nets[1]: has no value; write one, or remove the key to have its default`},
		"text for section":         {"deep: 5", `f:1: deep: expected a section with keys below it, found "5"`},
		"list for map":             {"lives: [1h]", `f:1: lives: expected names with values, found a list`},
		"nothing":                  {"name:\non: true", `f:1: name: has no value; write one, or remove the key to have its default`},
		"map value":                {"lives:\n  a.example: 1h\n  b.example: 1", `f:3: lives.b.example: a duration needs a unit (ms, s, m, h, d): "1" could be 1s or 1h`},
		"map name twice":           {"lives:\n  a.example: 1h\n  a.example: 2h", `f:3: lives.a.example: is there twice`},
		"list of sections":         {"hops:\n  - address: a\n    timeout: 7\n", `f:3: hops[0].timeout: a duration needs a unit (ms, s, m, h, d): "7" could be 7s or 7h`},
		"text in list of sections": {"hops: [a]", `f:1: hops[0]: expected a section with keys, found "a"`},
		"unknown in element":       {"hosts: {a: {timeot: 1s}}", `f:1: hosts.a.timeot: unknown key; did you mean "timeout"?`},
		"unknown":                  {"\n\nnaem: x", `f:3: naem: unknown key; did you mean "name"?`},
		"unknown by case":          {"Name: x", `f:1: Name: unknown key; did you mean "name"?`},
		"unknown below":            {"deep:\n  again:\n    kye: 1", `f:3: deep.again.kye: unknown key; did you mean "key"?`},
		"elsewhere":                {"inner: x", `f:1: inner: unknown key; did you mean deep.inner?`},
		"unknown with no idea":     {"deep:\n  zzzzzz: 1", `f:2: deep.zzzzzz: unknown key; deep has secret_file, again, inner`},
		"duplicate":                {"name: a\non: true\nname: b", `f:3: name: is already set on line 1`},
		"duplicate section":        {"deep: {inner: a}\ndeep: {inner: b}", `f:2: deep: is already set on line 1`},
		"merge key":                {"deep: &d {inner: a}\nhops:\n- <<: *d", `f:3: hops[0]: expected a key, found "<<"`},
		"alias":                    {"name: &n x\ncolor: *n", `f:2: color: an alias (*name) is not read; write the value out`},
		"alias for a section":      {"deep: &d {inner: a}\nhosts: {a: *d}", `f:2: hosts.a: an alias (*name) is not read; write the value out`},
		"alias at the top":         {"name: &d a\ndeep: *d", `f:2: deep: expected a section with keys below it, found an alias (*d)`},
		"alias in list":            {"name: &n x\nnets: [*n]", `f:2: nets[0]: an alias (*name) is not read; write the value out`},
		"key that is a list":       {"? [a]\n: b", `f:1: expected a key, found a list`},
		"validate":                 {"name: x\ndeep:\n  inner: bad", "f:3: deep.inner: is bad\nf:2: deep: nothing: to see"},
		"empty":                    {"", `f: the file is empty; it needs at least site, domains and smtp`},
		"only comments":            {"# a: b\n---\n", `f: the file is empty; it needs at least site, domains and smtp`},
		"no mapping":               {"\n- a", `f:2: expected keys and values ("site: b"), found a list`},
		"second document":          {"name: a\n---\nname: b", `f:2: a second YAML document starts here; only one is read`},
		"no yaml":                  {"a: [", "f:1: not valid YAML: did not find expected node content"},
		"tab":                      {"deep:\n\tinner: x", "f:2: not valid YAML: found character that cannot start any token"},
		"binary":                   {"name: \x00", "f: not valid YAML: control characters are not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, faults := loadSample(t, c.yaml)
			want := strings.Split(c.want, "\n")
			if name == "validate" {
				want[0], want[1] = want[1], want[0]
			}
			if diff := cmp.Diff(want, faults); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFaultyKeyKeepsItsDefault(t *testing.T) {
	t.Parallel()
	got, faults := loadSample(t, "wait: 10\nnets: 5", "UNDERSTUDY_COUNT=x")
	if len(faults) != 3 || got.Wait != 90*time.Second || len(got.Nets) != 2 || got.Count != 3 {
		t.Errorf("%v %+v", faults, got)
	}
}

func TestEmptySectionHasItsDefaults(t *testing.T) {
	t.Parallel()
	got, faults := loadSample(t, "name: a\ndeep:\n  again:\n")
	if faults != nil || got.Deep.Again.Key != "x" {
		t.Errorf("%v %+v", faults, got)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	got, faults := loadSample(
		t, "name: file\ncount: 1\nnets: [a]", "UNDERSTUDY_NAME=a, b = c", "UNDERSTUDY_NETS=10.0.0.0/8, ::1", "UNDERSTUDY_WAIT=2h",
		"UNDERSTUDY_DEEP_AGAIN_KEY=", "UNDERSTUDY_DEEP_INNER=i", "UNDERSTUDY_SIZE=2KiB", "UNDERSTUDY_ON=false", "OTHER=1", "PATH=/bin",
	)
	if faults != nil {
		t.Fatal(faults)
	}
	if got.Name != "a, b = c" || got.Count != 1 || got.Wait != 2*time.Hour || got.Deep.Again.Key != "" || got.Deep.Inner != "i" ||
		got.Bytes != 2048 || got.On {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff([]string{"10.0.0.0/8", "::1"}, got.Nets); diff != "" {
		t.Error(diff)
	}
}

func TestEnvironmentEmptiesAList(t *testing.T) {
	t.Parallel()
	got, faults := loadSample(t, "nets: [a]", "UNDERSTUDY_NETS=")
	if faults != nil || len(got.Nets) != 0 {
		t.Errorf("%v %q", faults, got.Nets)
	}
}

func TestEnvironmentFaults(t *testing.T) {
	t.Parallel()
	for assignment, want := range map[string]string{
		"UNDERSTUDY_WAIT=10":           `UNDERSTUDY_WAIT: wait: a duration needs a unit (ms, s, m, h, d): "10" could be 10s or 10h`,
		"UNDERSTUDY_DEEP=x":            `UNDERSTUDY_DEEP: names a section (deep), not a key; set one of its keys, as UNDERSTUDY_DEEP_SECRET_FILE`,
		"UNDERSTUDY_HOPS=x":            `UNDERSTUDY_HOPS: hops cannot be set by the environment, only in the file`,
		"UNDERSTUDY_LIVES=x":           `UNDERSTUDY_LIVES: lives cannot be set by the environment, only in the file`,
		"UNDERSTUDY_DEEP_INER=x":       `UNDERSTUDY_DEEP_INER: no key has this variable; did you mean UNDERSTUDY_DEEP_INNER?`,
		"UNDERSTUDY_ZZZZZZZZZZZZZZZ=x": `UNDERSTUDY_ZZZZZZZZZZZZZZZ: no key has this variable; variables that start with UNDERSTUDY_ are reserved for keys`,
		"UNDERSTUDY_DEEP_INNER=bad":    `UNDERSTUDY_DEEP_INNER: deep.inner: is bad`,
	} {
		t.Run(assignment, func(t *testing.T) {
			t.Parallel()
			_, faults := loadSample(t, "name: a", assignment)
			if len(faults) == 0 || faults[len(faults)-1] != want {
				t.Errorf("got %q, want %q", faults, want)
			}
		})
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing := filepath.Join(dir, "missing")
	open, empty := write("open", "s", 0o644), write("empty", "", 0o600)
	for path, want := range map[string]string{
		write("owner", "s", 0o600): "",
		write("group", "s", 0o640): "",
		open:                       open + " is open to everybody (mode 0644); run chmod o= on it",
		empty:                      empty + " is empty",
		missing:                    missing + " does not exist",
		dir:                        dir + " is not a regular file",
	} {
		_, faults := loadSample(t, "deep:\n  secret_file: "+path)
		if want != "" {
			want = "f:2: deep.secret_file: " + want
		}
		if got := strings.Join(faults, "\n"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSecretInAListHasItsLine(t *testing.T) {
	t.Parallel()
	_, got := parse(t, "site: b\nsmtp:\n  recipients:\n    sources:\n    - source: redis\n      url: redis://h\n      key: k\n      password_file: /no/such\n")
	if want := "f:8: smtp.recipients.sources[0].password_file: /no/such does not exist"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSchemaRefusesMistakesInStructs(t *testing.T) {
	t.Parallel()
	for want, target := range map[string]any{
		"no key tag": &struct{ A string }{},
		"is there twice": &struct {
			A, B string `key:"a"`
		}{},
		"cannot be configured": &struct {
			A chan int `key:"a"`
		}{},
		"is not exported": &struct {
			a int `key:"a"`
		}{},
		"only a struct": &struct {
			A int `key:",inline"`
		}{},
	} {
		if _, err := newLoader("f", target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"listen", "hostname", "domains", "to_peer"}
	for word, want := range map[string]string{
		"listne": "listen", "hostnam": "hostname", "host_name": "hostname", "HOSTNAME": "hostname", "domain": "domains",
		"topeer": "to_peer", "x": "", "": "", "certificate": "", "lixxxn": "", strings.Repeat("a", 100000): "",
	} {
		if got := nearest(word, words); got != want {
			t.Errorf("%.20q: got %q, want %q", word, got, want)
		}
	}
}

func TestReloadTagOfASectionIsThatOfItsKeys(t *testing.T) {
	t.Parallel()
	type config struct {
		Limits struct {
			Deep struct {
				Clients int `key:"clients" default:"1" doc:"Clients."`
			} `key:"deep"`
		} `key:"limits" reload:"true"`
		Other int `key:"other" default:"1" doc:"Other."`
	}
	s, err := schemaOf(reflect.TypeFor[config]())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	s.walk(func(k *key) { got[k.path] = k.reload })
	if !got["limits.deep.clients"] || got["other"] {
		t.Error(got)
	}
}

func TestLocateFindsTheFullKeyOfAFault(t *testing.T) {
	t.Parallel()
	l, err := newLoader("f", &Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ section, text, path, rest string }{
		{"smtp.queue", "lifetime: is short", "smtp.queue.lifetime", "is short"},
		{"smtp.queue", "queue.lifetime: is short", "smtp.queue.lifetime", "is short"},
		{"smtp.queue", "smtp.queue.lifetime: is short", "smtp.queue.lifetime", "is short"},
		{"smtp.queue", "queue.domain_lifetimes.a.example: is short", "smtp.queue.domain_lifetimes.a.example", "is short"},
		{"smtp", "limits.exempt[2]: is odd: 7", "smtp.limits.exempt[2]", "is odd: 7"},
		{"smtp", "peers: one\ntwo", "smtp.peers", "one; two"},
		{"smtp", "domains: are wrong", "domains", "are wrong"},
		{"admin", "open the door: it is shut", "admin", "open the door: it is shut"},
		{"admin", "nothing: it is shut", "admin", "nothing: it is shut"},
		{"admin", "no colon", "admin", "no colon"},
	} {
		if path, rest := l.locate(c.section, c.text); path != c.path || rest != c.rest {
			t.Errorf("%s in %s: got %q %q", c.text, c.section, path, rest)
		}
	}
}

func TestSplitTakesOnlyJoinedErrorsApart(t *testing.T) {
	t.Parallel()
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	wrapped := fmt.Errorf("x: %w and %w", a, b)
	got := fmt.Sprintf("%q", split(errors.Join(errors.Join(a, c), wrapped)))
	if want := `["a" "c" "x: a and b"]`; got != want || split(nil) != nil {
		t.Errorf("got %s, want %s", got, want)
	}
}
