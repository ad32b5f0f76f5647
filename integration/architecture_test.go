//
// It checks the floor plan (who may import whom) and the size limits of files and functions.
// Every new package goes into the map, and into the picture in ARCHITECTURE.md.

package integration

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// floors is the floor plan: a package may import packages on lower floors only.
var floors = map[string]int{
	"internal/durable":           0,
	"internal/durable/simfs":     1,
	"internal/hooks":             0,
	"internal/bans":              1,
	"internal/ask":               0,
	"internal/twin":              0,
	"internal/peer":              0,
	"internal/peer/peertest":     1,
	"smtp/wire":                  0,
	"smtp/wire/probe":            0,
	"smtp/auth":                  0,
	"imapsync/wire":              0,
	"smtp":                       1,
	"spamsync":                   1,
	"spamsync/message":           0,
	"spamsync/corpus":            0,
	"spamsync/mailfiles":         0,
	"spamsync/learn":             2,
	"spamsync/parity":            2,
	"spamsync/statetest":         2,
	"spamsync/engine/builtin":    2,
	"imapsync":                   1,
	"dnsfailover":                1,
	"dnsfailover/arbitertest":    2,
	"dnsfailover/sim":            2,
	"smtp/queue":                 2,
	"smtp/queue/queuetest":       2,
	"smtp/relay":                 2,
	"smtp/recipients":            2,
	"smtp/recipients/postfix":    2,
	"spamsync/engine/link":       1,
	"spamsync/engine/enginetest": 2,
	"spamsync/engine/rspamd":     2,
	"spamsync/engine/spamd":      2,
	"spamsync/engine/milter":     2,
	"spamsync/engine/clamd":      2,
	"spamsync/engine":            3,
	"spamsync/replica":           3,
	"spamsync/replica/stream":    0,
	"spamsync/replica/journal":   1,
	"spamsync/replica/merge":     2,
	"imapsync/imapstore":         2,
	"imapsync/storetest":         2,
	"imapsync/accounts":          2,
	"imapsync/fleet":             3,
	"imapsync/sieve":             2,
	"dnsfailover/rfc2136":        2,
	"dnsfailover/witness":        2,
	"dnsfailover/hosted":         2,
	"dnsfailover/probe":          2,
	"dnsfailover/tunnel":         2,
	"internal/admin":             3,
	"smtp/dsn":                   3,
	"internal/config":            4,
	"internal/daemon":            5,
	"internal/demo":              6,
	"cmd/understudy":             7,
}

// Outer bounds; CONVENTIONS aim at 600 and 80.
const (
	maxFileLines = 900
	maxFuncLines = 120
)

func TestArchitecture(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,Imports,GoFiles,Module", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath, Dir  string
			Imports, GoFiles []string
			Module           struct{ Path string }
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, p.Module.Path+"/")
		if name == "integration" || strings.HasPrefix(name, "integration/") {
			continue
		}
		floor, ok := floors[name]
		if !ok {
			t.Errorf("%s: not on the floor plan", name)
			continue
		}
		for _, imp := range p.Imports {
			rel, ours := strings.CutPrefix(imp, p.Module.Path+"/")
			if !ours {
				continue
			}
			below, listed := floors[rel]
			if !listed {
				t.Errorf("%s imports %s: not on the floor plan", name, rel)
			} else if below >= floor {
				t.Errorf("%s (floor %d) imports %s (floor %d)", name, floor, rel, below)
			}
		}
		for _, f := range p.GoFiles {
			checkSizes(t, filepath.Join(p.Dir, f))
		}
	}
}

func checkSizes(t *testing.T, path string) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return
	}
	if n := fset.Position(f.End()).Line; n > maxFileLines {
		t.Errorf("%s: %d lines, limit %d", path, n, maxFileLines)
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > maxFuncLines {
			t.Errorf("%s: %s is %d lines, limit %d", path, fn.Name.Name, n, maxFuncLines)
		}
	}
}
