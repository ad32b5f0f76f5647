package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/spamsync"
	"understudy/spamsync/corpus"
	"understudy/spamsync/replica"
)

// fuzzyAdd has Rspamd's controller add the hashes of a message.
func fuzzyAdd(t *testing.T, r *rspamdServer, m corpus.Sample) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.Controller+"/fuzzyadd", bytes.NewReader(m.Message))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Flag", "11")
	req.Header.Set("Weight", "10")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), `"success":true`) {
		t.Fatalf("fuzzyadd: %s %s %v", resp.Status, text, err)
	}
}

// fuzzyHashes are the hashes of a fuzzy storage with their values.
func fuzzyHashes(ctx context.Context, c *redis.Client) map[string]string {
	out := map[string]string{}
	for it := c.Scan(ctx, 0, "fuzzy*", 1000).Iterator(); it.Next(ctx); {
		if h := c.HGetAll(ctx, it.Val()).Val(); h["V"] != "" {
			out[it.Val()] = h["F"] + ":" + h["V"]
		}
	}
	return out
}

// TestReplicaFuzzy: Rspamd's fuzzy storage of this site writes through the endpoint.
// A hash that is added here is at both sites, while this site follows, while it stands
// alone, and after the return; none vanishes.
func TestReplicaFuzzy(t *testing.T) {
	t.Parallel()
	a, b := redisPair(t)
	k := keepSite(t, "b", false, b.Addr, a.Addr, lab.Dir(t), nil)
	k.waitFollowing(t, a.Addr)
	endpoint := k.writes.Options().Addr
	r := newRspamd(t, "fuzzy", b.Addr, endpoint, startResolver(t))
	var text strings.Builder
	if _, err := replica.WriteRspamdConfig(&text, spamsync.RedisConfig{Address: b.Addr, WriteListen: endpoint}); err != nil {
		t.Fatal(err)
	}
	_, fuzzy, ok := strings.Cut(text.String(), "so that no hash is added to a Redis that only reads.\n")
	if !ok {
		t.Fatalf("no fuzzy storage in\n%s", &text)
	}
	storage := lab.FreeAddr(t)
	r.set("worker-fuzzy.inc", fuzzy+fmt.Sprintf("count = 1; bind_socket = %q; allow_update = [\"127.0.0.0/8\"]; sync = 0.2s;", storage))
	r.set("fuzzy_check.conf", fmt.Sprintf(`rule "lab" { algorithm = "mumhash"; servers = %q; symbol = "LAB_FUZZY"; read_only = no; mime_types = ["*"];
fuzzy_map = { LAB_DENIED { max_score = 20; flag = 11; } } }`, storage))
	r.start()
	mail := corpus.Generate(77, 3)
	ctx := t.Context()
	arrived := func(what string, want int, at ...*servers.KeyValue) map[string]string {
		t.Helper()
		var got map[string]string
		lab.Wait(t, 20*time.Second, what, func() error {
			for _, s := range at {
				if got = fuzzyHashes(ctx, s.Client); len(got) < want {
					return fmt.Errorf("%d hashes at %s, want %d", len(got), s.Addr, want)
				}
			}
			return nil
		})
		return got
	}
	fuzzyAdd(t, r, mail[0])
	first := arrived("added at home, and copied", 1, a, b)

	a.Freeze()
	k.wait(t, replica.Detached, b.Addr)
	fuzzyAdd(t, r, mail[1])
	second := arrived("added here, alone", len(first)+1, b)
	a.Thaw()
	if n := len(fuzzyHashes(ctx, a.Client)); n > len(second) {
		t.Fatalf("%d hashes at home before the merge", n)
	}
	k.waitFollowing(t, a.Addr)
	arrived("merged", len(second), a, b)
	fuzzyAdd(t, r, mail[2])
	third := arrived("added at home after the return", len(second)+1, a, b)
	lab.Wait(t, 10*time.Second, "both have the same", func() error {
		if here, home := fuzzyHashes(ctx, b.Client), fuzzyHashes(ctx, a.Client); !maps.Equal(here, home) {
			return fmt.Errorf("%v here, %v at home", slices.Sorted(maps.Values(here)), slices.Sorted(maps.Values(home)))
		}
		return nil
	})
	for key, value := range second {
		if third[key] != value {
			t.Errorf("%q is %q at the end, was %q", key, third[key], value)
		}
	}
	t.Logf("%d hashes after the first, %d alone, %d at the end", len(first), len(second), len(third))
}
