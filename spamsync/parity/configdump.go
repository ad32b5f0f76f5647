package parity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/spamsync/engine/link"
)

const (
	// dumpTimeout bounds the command that prints a configuration.
	dumpTimeout = 30 * time.Second
	// maxDumpBytes bounds what it prints; a plain Rspamd 3.4 prints 200 KiB.
	maxDumpBytes = 32 << 20
	// maxDumpDepth bounds how deep sections may be nested.
	maxDumpDepth = 64
	// maxSettings bounds the settings that a report names.
	maxSettings = 200
)

// Placeholders for what differs from machine to machine.
const (
	somePath    = "<path>"
	someAddress = "<address>"
)

// compareConfiguration has both sites print Rspamd's whole configuration, and
// names each setting that they do not share.
func (c *Comparer) compareConfiguration(ctx context.Context, r *Report) error {
	if len(c.cfg.PeerConfigdump) == 0 {
		r.Skipped = append(r.Skipped, "configuration: spam.parity.peer_configdump names no command that prints the other site's")
		return nil
	}
	here, err := dump(ctx, c.cfg.configdump(), c.cfg.ConfigdumpIgnore)
	if err != nil {
		return fmt.Errorf("here: %w", err)
	}
	peer, err := dump(ctx, c.cfg.PeerConfigdump, c.cfg.ConfigdumpIgnore)
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	r.Settings = len(here)
	r.Differences = append(r.Differences, differSettings(here, peer)...)
	return nil
}

// dump runs a command that prints a configuration, and returns its settings.
func dump(ctx context.Context, command, ignore []string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, dumpTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // the operator's own command
	out, complaint := &bounded{left: maxDumpBytes}, &bounded{left: 4096, cut: true}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, complaint, time.Second
	if err := cmd.Run(); err != nil {
		if out.over { // the command dies of it, too
			err = errTooLong
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if text := link.Text(strings.TrimSpace(complaint.buf.String()), 200); text != "" {
			return nil, fmt.Errorf("run %s: %w: %s", command[0], err, text)
		}
		return nil, fmt.Errorf("run %s: %w", command[0], err)
	}
	settings, err := parseDump(out.buf.Bytes(), ignore)
	if err != nil {
		return nil, fmt.Errorf("output of %s: %w", command[0], err)
	}
	return settings, nil
}

// errTooLong ends a command that prints more than any configuration.
var errTooLong = errors.New("the output is too long")

// bounded is a buffer that takes so many bytes; what is too much is an error, or
// where it may be cut is dropped.
type bounded struct {
	buf  bytes.Buffer // not embedded: its ReadFrom knows no bound
	left int
	cut  bool
	// over says that there was more.
	over bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	n := len(p)
	if n > b.left {
		b.over = true
		if !b.cut {
			return 0, errTooLong
		}
		p = p[:b.left]
	}
	b.left -= len(p)
	b.buf.Write(p)
	return n, nil
}

// parseDump reads what "rspamadm configdump -j" printed, warnings before it left
// out, as settings by their path: "options.dns.timeout". Sections named in ignore
// are left out, and so is what belongs to one machine.
func parseDump(raw []byte, ignore []string) (map[string]string, error) {
	if !bytes.HasPrefix(raw, []byte("{")) {
		at := bytes.Index(raw, []byte("\n{"))
		if at < 0 {
			return nil, errors.New("is no JSON object")
		}
		raw = raw[at+1:]
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if len(tree) == 0 {
		return nil, errors.New("holds no setting")
	}
	f := flattener{ignore: ignore, values: make(map[string][]string)}
	if err := f.flatten("", "", tree, 0); err != nil {
		return nil, err
	}
	out := make(map[string]string, len(f.values))
	for name, list := range f.values {
		slices.Sort(list)
		out[name] = strings.Join(list, ", ")
	}
	return out, nil
}

// flattener makes settings of a tree.
type flattener struct {
	ignore []string
	values map[string][]string
}

// flatten walks v, which is found at path under key.
func (f *flattener) flatten(path, key string, v any, depth int) error {
	if depth > maxDumpDepth {
		return errors.New("sections are nested too deep")
	}
	if personal(key) || f.ignored(path) {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		for k, child := range v {
			if err := f.flatten(join(path, k), strings.ToLower(k), child, depth+1); err != nil {
				return err
			}
		}
	case []any:
		for i, child := range v {
			at := path
			// Sections of one name, each with a name of its own ("worker"), are told
			// apart by that; others by their number.
			if m, ok := child.(map[string]any); ok && len(m) != 1 {
				at = join(path, strconv.Itoa(i))
			}
			if err := f.flatten(at, key, child, depth+1); err != nil {
				return err
			}
		}
	default:
		value := normalised(key, v)
		if list := f.values[path]; !slices.Contains(list, value) {
			f.values[path] = append(list, value)
		}
	}
	return nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (f *flattener) ignored(path string) bool {
	return slices.ContainsFunc(f.ignore, func(s string) bool { return path == s || strings.HasPrefix(path, s+".") })
}

// personal says whether a setting is one machine's own and no matter of verdicts:
// where Redis is, who may log in, and how many processes run.
func personal(key string) bool {
	switch key {
	case "servers", "read_servers", "write_servers", "password", "enable_password", "bind_socket", "pidfile", "pid":
		return true
	}
	return false
}

var (
	pathValue = regexp.MustCompile(`^((?:[a-z]+[+;])*(?:file://)?)((?:/(?:etc|var|usr|run|tmp|opt|home|srv|root|mnt|data|proc)(?:/[\w.@+-]+)*)/?)( mode=\d+)?$`)
	// portValue is host:port, with Rspamd's weight after it.
	portValue = regexp.MustCompile(`^(?:\*v?[46]?|localhost|\[[0-9A-Fa-f:.]+\]|(?:[\w-]+\.)+[\w-]+):\d{1,5}(?::\d+)?$`)
	hostValue = regexp.MustCompile(`^(?:localhost|[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$`)
)

// normalised prints a value, without what is one machine's own: the directory of a
// file, addresses with ports, the address of a server. Networks and addresses of
// senders stay: verdicts depend on them.
func normalised(key string, v any) string {
	switch v := v.(type) {
	case float64:
		if key == "port" {
			return someAddress
		}
		return number(v)
	case bool:
		return strconv.FormatBool(v)
	case string:
		return normalisedText(key, v)
	}
	return "null"
}

func normalisedText(key, s string) string {
	if key == "re" || key == "regexp" { // "/var/i" is no path
		return s
	}
	if m := pathValue.FindStringSubmatch(s); m != nil {
		name := m[2][strings.LastIndexByte(m[2], '/')+1:]
		if !strings.Contains(name, ".") { // a directory
			name = somePath
		}
		return m[1] + name + m[3]
	}
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
	if len(parts) == 0 {
		return s
	}
	for _, p := range parts {
		if !portValue.MatchString(p) && (!isServer(key) || !hostValue.MatchString(p)) {
			return s
		}
	}
	return someAddress
}

// isServer says whether a key names servers, of which an address alone says where.
func isServer(key string) bool {
	switch key {
	case "server", "nameserver", "host", "hosts", "address", "sentinels":
		return true
	}
	return false
}

// isSecret says whether the last part of a path names what nobody should read in a
// report.
func isSecret(path string) bool {
	key := strings.ToLower(path[strings.LastIndexByte(path, '.')+1:])
	return slices.ContainsFunc([]string{"secret", "privkey", "private", "apikey", "api_key", "token", "encryption_key"}, func(s string) bool { return strings.Contains(key, s) })
}

// differSettings names what two configurations do not share.
func differSettings(here, peer map[string]string) []Difference {
	var out []Difference
	for _, name := range keys(here, peer) {
		a, inHere := here[name]
		b, inPeer := peer[name]
		if a == b && inHere == inPeer {
			continue
		}
		if len(out) == maxSettings {
			return append(out, Difference{Aspect: "setting", Name: "(and more)", Here: "not named", Peer: "not named"})
		}
		out = append(out, Difference{Aspect: "setting", Name: link.Text(name, 200), Here: shown(name, a, inHere, false), Peer: shown(name, b, inPeer, inHere)})
	}
	return out
}

// shown is a value for people; another says that the other site has one, too.
func shown(name, value string, set, another bool) string {
	switch {
	case !set:
		return ""
	case isSecret(name) && another:
		return "another secret"
	case isSecret(name):
		return "a secret"
	case value == "":
		return `""`
	}
	return link.Text(value, 200)
}
