package daemon

import (
	"bytes"
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/integration/servers"
	"understudy/internal/config"
	"understudy/spamsync"
	"understudy/spamsync/corpus"
	"understudy/spamsync/message"
	"understudy/spamsync/parity"
)

// noNames is a resolver that knows no name.
type noNames struct{}

func (noNames) fail(name string) error {
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (n noNames) LookupTXT(_ context.Context, name string) ([]string, error) {
	return nil, n.fail(name)
}

func (n noNames) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	return nil, n.fail(name)
}

func (n noNames) LookupIPAddr(_ context.Context, name string) ([]net.IPAddr, error) {
	return nil, n.fail(name)
}

func (n noNames) LookupAddr(_ context.Context, name string) ([]string, error) {
	return nil, n.fail(name)
}

// builtinConfig is site b's, whose Redis is at here.
func builtinConfig(t *testing.T, here, peer string) config.Config {
	t.Helper()
	cfg, err := config.Parse("f", []byte(`
site: b
domains: [primary.example]
smtp: {hostname: mx2.primary.example}
spam: {engine: builtin, redis: {address: "`+here+`", peer: "`+peer+`", timeout: 5s}, builtin: {bayes: {min_learns: 50}}}
`), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func teachBuiltin(t *testing.T, address string, seed uint64, n int) {
	t.Helper()
	redis := spamsync.DefaultRedisConfig()
	redis.Address, redis.Timeout = address, 5*time.Second
	state, closeState, err := spamsync.OpenRedis(redis)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closeState() }()
	classifier := &spamsync.Classifier{State: state}
	for _, s := range corpus.Generate(seed, n) {
		m, err := message.Parse(bytes.NewReader(s.Message), message.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		class := spamsync.Ham
		if s.Spam {
			class = spamsync.Spam
		}
		if _, err := classifier.Learn(t.Context(), spamsync.Digest(m), class, spamsync.Tokenize(m)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBuiltinParity: the builtin filter over a Redis master and over its replica
// judges alike in every symbol and score, and writes nothing; a replica that was
// cut off and taught otherwise is found, and so is one that does not answer.
func TestBuiltinParity(t *testing.T) {
	t.Parallel()
	master := servers.Redis(t)
	host, port, err := net.SplitHostPort(master.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica := servers.Redis(t, "--replicaof", host+" "+port)
	teachBuiltin(t, master.Addr, 5, 200)

	compare := func(here, peer string) (parity.Report, error) {
		t.Helper()
		c, done, err := openParity(builtinConfig(t, here, peer), noNames{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = done() }()
		return c.Compare(t.Context(), parity.Generated(77, 200))
	}
	r, err := compare(replica.Addr, master.Addr)
	if err != nil || r.Result != parity.Equal || r.Probe.Messages != 200 || r.Probe.Unequal != 0 || r.Probe.NoiseHere+r.Probe.NoisePeer != 0 {
		t.Errorf("%v, %s: %v, %+v", err, r.Summary(), r.Differences, r.Probe.Named)
	}
	if !r.WriteChecked || r.Written != 0 || len(r.Skipped) != 1 {
		t.Errorf("%d bytes written, checked: %v; skipped %q", r.Written, r.WriteChecked, r.Skipped)
	}
	if len(r.Probe.Actions) < 2 {
		t.Errorf("all messages are judged the same: %v", r.Probe.Actions)
	}
	t.Logf("%s; actions %v, %.1fs", r.Summary(), r.Probe.Actions, r.Seconds)

	replica.Do("REPLICAOF", "NO", "ONE")
	teachBuiltin(t, replica.Addr, 6, 20)
	if r, err = compare(replica.Addr, master.Addr); err != nil {
		t.Fatal(err)
	}
	bayes := func(s parity.SymbolReport) bool { return strings.HasPrefix(s.Name, "BAYES_") }
	if !r.Broken() || r.Probe.Different == 0 || !slices.ContainsFunc(r.Probe.Symbols, bayes) ||
		!slices.ContainsFunc(r.Differences, func(d parity.Difference) bool { return d.Aspect == "redis" }) {
		t.Errorf("taught otherwise: %s: %v, %+v", r.Summary(), r.Differences, r.Probe.Symbols)
	}
	t.Logf("taught otherwise: %s", r.Summary())

	// Both filters without any memory would be alike: that must not pass.
	replica.Kill()
	if r, err = compare(replica.Addr, master.Addr); err == nil || r.Probe.Messages != 0 || !strings.Contains(err.Error(), spamsync.ErrAway.Error()) {
		t.Errorf("no answer: %v, %s", err, r.Summary())
	}
}
