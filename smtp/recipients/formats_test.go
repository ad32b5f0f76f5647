package recipients

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"understudy/smtp"
)

// readText reads text in a format and returns the keys, sorted.
func readText(text, format string, bare ...string) (*listing, []string, error) {
	l := newListing(rules{delimiters: "+"}, bare, func(d string) bool { return d == "example.com" })
	err := l.read(context.Background(), strings.NewReader(text), format, 1<<20)
	if err == nil {
		err = l.faulty()
	}
	var keys []string
	if l.keys.s != nil {
		for k := range l.keys.s.all() {
			keys = append(keys, string(k))
		}
	}
	slices.Sort(keys)
	return l, keys, err
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, format, text, want, failed string
	}{
		{"lines", FormatLines, "a@x.example\r\n# c\n\n @y.example z\n", "@y.example a@x.example", ""},
		{"lines without domain", FormatLines, "a\n", "a@example.com", ""},
		{"lines, a domain is not a name", FormatLines, "example.com\n", "example.com@example.com", ""},
		{"postmap virtual", FormatPostmap, "example.com\tanything\na@example.com\tbox\n@example.com\tall\nuser\tx\n\"q q\"@example.com\ty\n", `@example.com a@example.com q q@example.com user@example.com`, ""},
		{"postmap mailbox", FormatPostmap, "a@example.com\texample.com/a/\n", "a@example.com", ""},
		{
			"aliases", FormatAliases, "# comment\npostmaster: root\n\troot2\nroot:me, you\n\"a b\": x\nlist : |\"/usr/bin/cmd a:b\"\n",
			"a b@example.com list@example.com postmaster@example.com root@example.com", "",
		},
		{"postalias -s", FormatAliases, "@:@\nYP_LAST_MODIFIED:1\nYP_MASTER_NAME:x\nwww:\troot\n", "www@example.com", ""},
		{"postalias -s with blanks", FormatAliases, "odd name:\tbob\n", "odd name@example.com", ""},
		{"passwd", FormatPasswd, "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n", "me@example.com root@example.com", ""},
		{"malformed", FormatLines, "a@\nb@example.com\n<c@example.com>\n", "b@example.com", `2 malformed entries: line 1: malformed address: domain ""; line 3`},
		{"many malformed", FormatLines, strings.Repeat("@\n", 50), "", "and 45 more"},
		{"empty local part", FormatLines, "\"\"@example.com\n", "", "malformed"},
		{"no text", FormatLines, "a@example.com\x00\n", "", "NUL"},
		{"too long", FormatLines, strings.Repeat("a@example.com\n", 1<<17), "a@example.com", errTooLong.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, keys, err := readText(tc.text, tc.format, "example.com")
			if (err != nil) != (tc.failed != "") || err != nil && !strings.Contains(err.Error(), tc.failed) {
				t.Errorf("error %v, want %q", err, tc.failed)
			}
			if got := strings.Join(keys, " "); err == nil && got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestPostmapDeclaresDomains(t *testing.T) {
	t.Parallel()
	const text = "example.org\tanything\na@example.org\tbox\n"
	_, keys, err := readText(text, FormatPostmap)
	if err != nil || strings.Join(keys, " ") != "a@example.org" {
		t.Errorf("got %v, %v: a domain that is not ours makes the whole list malformed", keys, err)
	}
	if _, _, err := readText("user\tbox\n", FormatPostmap); err == nil {
		t.Error("a name without a domain, which can belong to nobody, is no fault")
	}
}

const tableText = `# comment
/^user[0-9]+@example\.com$/	OK
/^joined@
  example\.com$/ OK joined
!/@example\.com$/ OK other domain
if /^if-/
/yes@/ OK
# inside
if !/b@/
/^if-not/ OK
endif
endif
/^Case@/i  OK
#/^commented@/ OK
|^pipe\|d@| OK
/a\/b@/ OK
`

// tableWants says which addresses the table has, by Postfix 3.7.
func tableWants() map[string]bool {
	return map[string]bool{
		"user12@example.com":    true,
		"USER12@EXAMPLE.COM":    true,
		"user@example.com":      false,
		"x@other.example":       true,
		"joined@example.com":    false,
		"joined@  example.com":  true,
		"if-yes@example.com":    true,
		"yes@example.com":       false,
		"if-not@example.com":    true,
		"if-notb@example.com":   false,
		"Case@example.com":      true,
		"case@example.com":      false,
		"commented@example.com": false,
		"pipe|d@example.com":    true,
		"d@example.com":         false,
		"a/b@example.com":       true,
	}
}

// Postfix itself agrees with the expectations.
func TestTableByPostmap(t *testing.T) {
	t.Parallel()
	postmap, err := exec.LookPath("/usr/sbin/postmap")
	if err != nil {
		t.Skip("no postmap here")
	}
	dir := t.TempDir()
	write(t, dir+"/table", tableText)
	write(t, dir+"/main.cf", "compatibility_level = 3.6\nmaillog_file = /dev/stdout\n")
	for address, want := range tableWants() {
		cmd := exec.CommandContext(t.Context(), postmap, "-c", dir, "-q", address, "regexp:"+dir+"/table")
		if out, err := cmd.CombinedOutput(); (err == nil) != want {
			t.Errorf("%s: %q %v", address, out, err)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	for _, format := range []string{FormatPCRE, FormatRegexp} {
		l, _, err := readText(tableText, format)
		if err != nil {
			t.Fatal(err)
		}
		for address, want := range tableWants() {
			if _, got := l.tables[0].match(address); got != want {
				t.Errorf("%s: %s: %t", format, address, got)
			}
		}
	}
	for text, want := range map[string]string{
		"/(?=look)ahead/ OK\n":          "line 1: pattern /(?=look)ahead/ cannot be evaluated here",
		"\n/(a)\\1/ OK\n":               "line 2: ",
		"/open":                         "not closed",
		"/x/":                           "without a result",
		"if /x/\n/y/ OK\n":              "if without endif",
		"endif\n":                       "endif without if",
		"if /x/ OK\nendif\n":            "text behind the pattern of if",
		"/x/Z OK\n":                     `flag 'Z' cannot be evaluated here`,
		"user@example.com OK\n":         "no delimiter",
		"!":                             "no pattern",
		"/a/ OK\n/(/ OK\n/b/ OK\n/[/ x": "line 4",
	} {
		if _, _, err := readText(text, FormatPCRE); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, _, err := readText("/x/x OK\n", FormatRegexp); err == nil {
		t.Error("basic expressions were taken")
	}
}

func TestTableInDirectory(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/table"
	write(t, path, "/^team-.*@example\\.com$/ OK\n")
	w := newWorld(t)
	d := w.open(Config{One: SourceConfig{Kind: KindFile, Path: path, Format: FormatPCRE}})
	expect(t, d, map[string]smtp.Disposition{"Team-a@example.com": smtp.Exists, "a@example.com": smtp.Unknown})
	write(t, path, "/^(?!x)/ OK\n")
	_ = d.Refresh(t.Context(), "file")
	if got := w.alarms.text("recipients:file"); !strings.Contains(got, "line 1") {
		t.Errorf("alarm %q", got)
	}
	expect(t, d, map[string]smtp.Disposition{"team-b@example.com": smtp.Exists})
	// The table survives a restart, also with the file gone bad.
	d = w.open(Config{One: SourceConfig{Kind: KindFile, Path: path, Format: FormatPCRE}})
	expect(t, d, map[string]smtp.Disposition{"team-b@example.com": smtp.Exists, "b@example.com": smtp.Unknown})
	ex, err := d.Explain(t.Context(), "team-c@example.com")
	if err != nil || ex.Answer != "exists" || ex.Sources[0].Matched != `/^team-.*@example\.com$/ OK` {
		t.Errorf("%+v %v", ex, err)
	}
}

func FuzzTable(f *testing.F) {
	for _, s := range []string{"/a/ OK\n", "if /x/\n!/y/i OK\nendif\n", "|a\\|b| x", "#\n /x/", "!!/a/ b", "/\\/ x"} {
		f.Add(s, FormatPCRE)
		f.Add(s, FormatRegexp)
	}
	f.Fuzz(func(t *testing.T, text, format string) {
		if format != FormatPCRE {
			format = FormatRegexp
		}
		l, _, err := readText(text, format)
		if err != nil {
			return
		}
		tab := l.tables[0]
		_, got := tab.match("user@example.com")
		// What is kept for the next start is the same table.
		again, _, err := readText(tab.source, format)
		if err != nil {
			t.Fatalf("read again: %v", err)
		}
		if _, same := again.tables[0].match("user@example.com"); same != got || again.tables[0].source != tab.source {
			t.Fatalf("%q differs from %q", again.tables[0].source, tab.source)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add("a@example.com\n@b\n", FormatLines)
	f.Add("a: b\n\"x y\": c\n", FormatAliases)
	f.Add("a:x\n", FormatPasswd)
	f.Fuzz(func(t *testing.T, text, format string) {
		_, keys, err := readText(text, format, "example.com")
		if err != nil {
			return
		}
		for _, k := range keys {
			i := strings.LastIndexByte(k, '@')
			if i < 0 || i == len(k)-1 {
				t.Errorf("key %q of %q", k, text)
			}
		}
	})
}
