package config

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// notConfiguration before a YAML block says that it is of another program.
const notConfiguration = "<!-- not configuration -->"

// TestYAMLInTheDocumentationLoads loads every block marked yaml, so that no page
// shows what understudy would refuse.
func TestYAMLInTheDocumentationLoads(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../../README.md", "../../ARCHITECTURE.md")
	found := 0
	for _, page := range pages {
		data, err := os.ReadFile(page)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range yamlBlocks(data) {
			found++
			name := fmt.Sprintf("%s, block at line %d", filepath.Base(page), b.line)
			if err := loadBlock(name, b.text); err != nil {
				t.Error(err)
			}
		}
	}
	t.Logf("%d blocks loaded", found)
}

// loadBlock loads what may be only a part of a configuration: what every
// configuration must have and the block does not is supplied.
func loadBlock(name, text string) error {
	environ := []string{}
	for _, must := range []struct{ key, assignment string }{
		{"site:", "UNDERSTUDY_SITE=b"},
		{"domains:", "UNDERSTUDY_DOMAINS=example.com"},
		{"hostname:", "UNDERSTUDY_SMTP_HOSTNAME=mx2.example.com"},
		{"to_peer:", "UNDERSTUDY_SMTP_DELIVER_TO_PEER=smtp://mx1.example.net:25"},
	} {
		if !strings.Contains(text, must.key) {
			environ = append(environ, must.assignment)
		}
	}
	_, err := Parse(name, []byte(text), Options{Environ: environ, SkipFiles: true})
	return err
}

type yamlBlock struct {
	line int
	text string
}

// yamlBlocks finds the fenced blocks marked yaml, with their indentation removed.
func yamlBlocks(page []byte) []yamlBlock {
	var blocks []yamlBlock
	var text strings.Builder
	in, skip, indent, start := false, false, "", 0
	lines := bufio.NewScanner(bytes.NewReader(page))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		trimmed := strings.TrimSpace(line)
		switch {
		case in && trimmed == "```":
			blocks = append(blocks, yamlBlock{start, text.String()})
			in = false
		case in:
			text.WriteString(strings.TrimPrefix(line, indent) + "\n")
		case trimmed == notConfiguration:
			skip = true
		case trimmed == "```yaml" || trimmed == "```yml":
			in, start, indent = !skip, n+1, line[:strings.Index(line, "`")]
			skip = false
			text.Reset()
		case trimmed != "":
			skip = false
		}
	}
	return blocks
}

func TestYAMLBlocks(t *testing.T) {
	t.Parallel()
	page := "x\n```yaml\na: 1\n```\n" + notConfiguration + "\n\n```yaml\nb: 2\n```\n1. y\n   ```yaml\n   c:\n     d: 3\n   ```\n```sh\ne\n```\n"
	got := fmt.Sprint(yamlBlocks([]byte(page)))
	if want := "[{3 a: 1\n} {12 c:\n  d: 3\n}]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if loadBlock("x", "smtp: {listen: [':25'], max_hops: 9}") != nil || loadBlock("x", "smtp: {max_hop: 9}") == nil {
		t.Error("a good part is refused or a bad one accepted")
	}
}
