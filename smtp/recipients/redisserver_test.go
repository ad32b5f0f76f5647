package recipients

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/integration/servers"
	"understudy/smtp"
)

// redisPair starts a master with the addresses user0 to user2999@example.com and
// a replica that has them. On the replica the user
// "understudy" has the rights that are needed and no others.
func redisPair(t *testing.T) (master, replica *servers.KeyValue) {
	t.Helper()
	master = servers.Redis(t, "--user", "replica", "on", ">sesame", "+psync", "+replconf", "+ping")
	host, port, err := net.SplitHostPort(master.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica = servers.Redis(t, "--replicaof", host, port, "--masteruser", "replica", "--masterauth", "sesame",
		"--user", "understudy", "on", ">sesame", "~recipients", "~recipients:*", "+get", "+sscan", "+info")
	for n := range 3000 {
		master.Do("SADD", "recipients", fmt.Sprintf("user%d@example.com", n))
	}
	waitFor(t, "replication", func() bool {
		n, err := replica.Client.SCard(t.Context(), "recipients").Result()
		return err == nil && n == 3000
	})
	return master, replica
}

func redisSource(t *testing.T, addr, password string) SourceConfig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	write(t, path, password+"\n")
	return SourceConfig{Kind: KindRedis, Name: "set", URL: "redis://understudy@" + addr, SecretFile: path, Key: "recipients", Timeout: 10 * time.Second}
}

// The set is as old as the replica's link to its master, also while the master
// is dead and after the replica's own restart.
func TestRedisReplica(t *testing.T) {
	t.Parallel()
	master, replica := redisPair(t)
	w := newWorld(t)
	cfg := Config{One: redisSource(t, replica.Addr, "sesame"), Delimiter: "+"}
	d := w.open(cfg)
	refresh := func(want string) time.Time {
		t.Helper()
		if err := d.Refresh(t.Context(), "set"); want == "" && err != nil || !strings.Contains(errorText(err), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		return d.Status().Sources[0].AsOf
	}
	if asOf := refresh(""); time.Since(asOf) > 15*time.Second {
		t.Errorf("as of %v", asOf)
	}
	known := map[string]smtp.Disposition{"user0@example.com": smtp.Exists, "user2999@example.com": smtp.Exists, "user3000@example.com": smtp.Unknown}
	expect(t, d, known)

	master.Kill()
	died := time.Now()
	var asOf time.Time
	waitFor(t, "ageing of the set", func() bool {
		asOf = refresh("")
		return time.Since(asOf) > 3*time.Second
	})
	if asOf.After(died.Add(2*time.Second)) || asOf.Before(died.Add(-15*time.Second)) {
		t.Errorf("as of %v, died at %v", asOf, died)
	}
	expect(t, d, known)

	// The replica comes back without its master: it has the set and does not know
	// how old that is.
	replica.Do("SAVE")
	replica.Kill()
	refresh("source set: dial: ")
	replica.Start()
	if again := refresh(errUnknownAge.Error()); !again.Equal(asOf) {
		t.Errorf("as of %v, was %v", again, asOf)
	}
	expect(t, d, known)
	young := newWorld(t)
	other := young.open(cfg)
	if err := other.Refresh(t.Context(), "set"); err != nil {
		t.Fatal(err)
	}
	expect(t, other, map[string]smtp.Disposition{"user0@example.com": smtp.Exists, "user3000@example.com": smtp.Unsure})
	if st := other.Status().Sources[0]; st.Fresh || st.AgeSeconds != -1 || st.Error != errUnknownAge.Error() || st.Entries != 3000 {
		t.Errorf("%+v", st)
	}
	other.sources[0].checkAge(time.Now())
	if text := young.alarms.text("recipients:set:stale"); !strings.Contains(text, "unknown age") {
		t.Errorf("alarm %q", text)
	}

	// The master comes back empty, and so becomes the replica: not believed.
	master.Start()
	waitFor(t, "replication", func() bool {
		n, err := replica.Client.Exists(t.Context(), "recipients").Result()
		return err == nil && n == 0
	})
	waitFor(t, "the loss", func() bool {
		_ = d.Refresh(t.Context(), "set")
		return d.Status().Sources[0].Reason == "it lost all 3000 addresses"
	})
	expect(t, d, map[string]smtp.Disposition{"user2999@example.com": smtp.Exists})
}

// What may go wrong when somebody sets it up says what it is.
func TestRedisRights(t *testing.T) {
	t.Parallel()
	server := servers.Redis(t, "--user", "understudy", "on", ">sesame", "~recipients", "~recipients:*", "+get", "+sscan")
	server.Do("SADD", "recipients", "user@example.com")
	for _, tc := range []struct {
		name   string
		source func() SourceConfig
		want   string
	}{
		{"wrong password", func() SourceConfig { return redisSource(t, server.Addr, "wrong-secret") }, "WRONGPASS"},
		{"neither as_of nor INFO", func() SourceConfig { return redisSource(t, server.Addr, "sesame") }, "the age of the set is in recipients:as_of, which is not there, or in INFO, which this user may not ask"},
		{"as_of", func() SourceConfig {
			server.Do("SET", "recipients:as_of", time.Now().Unix())
			return redisSource(t, server.Addr, "sesame")
		}, ""},
		{"another's key", func() SourceConfig {
			sc := redisSource(t, server.Addr, "sesame")
			sc.Key = "secrets"
			return sc
		}, "NOPERM"},
		{"no set", func() SourceConfig {
			server.Do("SET", "recipients:text", "x")
			server.Do("SET", "recipients:text:as_of", "1")
			sc := redisSource(t, server.Addr, "sesame")
			sc.Key = "recipients:text"
			return sc
		}, "WRONGTYPE"},
	} {
		d := newWorld(t).open(Config{One: tc.source()})
		err := d.Refresh(t.Context(), "set")
		if tc.want == "" && err != nil || !strings.Contains(errorText(err), tc.want) || err != nil && !strings.HasPrefix(err.Error(), "source set: ") {
			t.Errorf("%s: %v", tc.name, err)
		}
		if strings.Contains(errorText(err), "wrong-secret") {
			t.Errorf("%s: a secret: %v", tc.name, err)
		}
	}
	// A server that hangs is given up.
	server.Freeze()
	wantTimeout(t, &redisSet{cfg: redisSource(t, server.Addr, "sesame")})
	server.Thaw()
}
